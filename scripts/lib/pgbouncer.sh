# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Finds PgBouncer, or builds it if the system's version is too old; the tests start it themselves. Needs machine.sh.

# First version with prepared statements in transaction mode.
PGBOUNCER_MINIMUM=1.21

# Debian release whose sources are built if the system's PgBouncer is too old.
PGBOUNCER_SUITE=trixie
PGBOUNCER_KEYS=/usr/share/keyrings/debian-archive-keyring.gpg

# `is_new_pgbouncer <version>`
is_new_pgbouncer() {
    [ -n "$1" ] && [ "$(printf '%s\n' "$PGBOUNCER_MINIMUM" "$1" | sort -V | sed -n 1p)" = "$PGBOUNCER_MINIMUM" ]
}

# Prints the path of a pgbouncer that is new enough, or fails. Debian installs it in /usr/sbin.
find_pgbouncer() {
    local file
    for file in "$(command -v pgbouncer)" /usr/sbin/pgbouncer /opt/homebrew/bin/pgbouncer /usr/local/bin/pgbouncer; do
        if [ -x "$file" ] && is_new_pgbouncer "$("$file" --version | sed -n 's/^PgBouncer //p')"; then
            say "$file"
            return 0
        fi
    done
    return 1
}

# Prints the version that apt would install.
packaged_pgbouncer() { apt-cache policy pgbouncer 2>/dev/null | sed -n 's/^ *Candidate: //p'; }

# `install_pgbouncer <folder to create>`; sets PGBOUNCER_BIN.
install_pgbouncer() {
    local cache=$TOOLS/pgbouncer-$PGBOUNCER_SUITE home=$1 packaged
    PGBOUNCER_BIN=$(find_pgbouncer) && return 0
    if [ ! -x "$cache/pgbouncer" ]; then
        packaged=$(packaged_pgbouncer)
        if [ -z "$packaged" ] && command -v apt-get >/dev/null 2>&1; then
            # A fresh container has no package lists yet.
            if [ "$(id -u)" = 0 ]; then apt-get update -q; else sudo apt-get update -q; fi >/dev/null
            packaged=$(packaged_pgbouncer)
        fi
        if ! command -v apt-get >/dev/null 2>&1 || is_new_pgbouncer "$packaged"; then
            install_packages "pgbouncer" "pgbouncer"
            PGBOUNCER_BIN=$(find_pgbouncer) || fail "PgBouncer was installed, but its program was not found"
            return 0
        fi
        install_once "$cache" build_pgbouncer "$cache" || fail "PgBouncer could not be built"
    fi
    # The unprivileged account must be able to run it, and the cache may be in a home folder.
    mkdir -p "$home"
    cp "$cache/pgbouncer" "$home/"
    chmod -R a+rX "$home"
    PGBOUNCER_BIN=$home/pgbouncer
}

# `build_pgbouncer <folder to create>`: builds Debian's sources from the system's mirror; apt verifies them.
build_pgbouncer() {
    local folder=$1 build apt mirror
    install_packages "gcc make pkg-config libevent-dev" ""
    say "building PgBouncer from the sources in Debian $PGBOUNCER_SUITE"
    mkdir -p "$folder"
    build=$(mktemp -d) || exit 1
    # shellcheck disable=SC2016 # apt-get substitutes this
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
    [ -n "$mirror" ] || fail "PgBouncer is older than $PGBOUNCER_MINIMUM, and no Debian mirror is configured to build a newer one"
    say "deb-src [signed-by=$PGBOUNCER_KEYS] $mirror $PGBOUNCER_SUITE main" >"$build/list"
    mkdir -p "$build/lists/partial" "$build/cache/archives/partial"
    apt=(apt-get -q -o "Dir::Etc::sourcelist=$build/list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$build/lists" -o "Dir::Cache=$build/cache" -o APT::Sandbox::User=)
    (
        cd "$build" &&
            "${apt[@]}" update && "${apt[@]}" source --download-only pgbouncer &&
            mkdir source && tar -xzf pgbouncer_*.orig.tar.gz -C source --strip-components=1 && cd source &&
            ./configure --without-cares --without-openssl && make -j2 pgbouncer
    ) >"$folder/log" 2>&1 || {
        tail -n 20 "$folder/log" >&2
        fail "PgBouncer could not be built"
    }
    mv "$build/source/pgbouncer" "$folder/"
    rm -rf "$build"
}
