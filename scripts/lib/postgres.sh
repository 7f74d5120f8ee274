# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Finds PostgreSQL, and starts and stops private servers. Needs machine.sh.

# Tools that the tests use; find_postgres skips folders that lack one of them.
POSTGRES_TOOLS="initdb postgres pg_ctl pg_dump pg_basebackup psql pgbench"

has_postgres_tools() {
    local tool
    for tool in $POSTGRES_TOOLS; do
        [ -x "$1/$tool" ] || return 1
    done
}

# Prints the folder of a command on PATH, with symbolic links resolved.
real_folder() {
    local file link
    file=$(command -v "$1") || return 1
    while [ -L "$file" ]; do
        link=$(readlink "$file")
        case $link in
        /*) file=$link ;;
        *) file=$(dirname "$file")/$link ;;
        esac
    done
    (cd "$(dirname "$file")" && pwd -P)
}

# Prints the folder with PostgreSQL's programs, or fails.
find_postgres() {
    local folder
    {
        real_folder postgres
        pg_config --bindir 2>/dev/null
        # Newest first: Debian and Ubuntu, Red Hat, Homebrew on Apple silicon and on Intel.
        for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
            /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
            [ -d "$folder" ] && printf '%s %s\n' "$(printf '%s' "$folder" | sed 's/[^0-9]//g')" "$folder"
        done | sort -rn | sed 's/^[0-9]* //'
    } | while read -r folder; do
        if has_postgres_tools "$folder"; then say "$folder"; fi
    done | sed -n 1p | grep .
}

# Sets postgres_bin to the folder with PostgreSQL's programs; installs PostgreSQL if it is missing.
require_postgres() {
    postgres_bin=$(find_postgres) && return 0
    install_packages postgresql postgresql
    postgres_bin=$(find_postgres) || fail "PostgreSQL was installed, but its programs were not found"
}

# Prints a UTF-8 locale, as production databases have. With the plain C locale, lower() and ILIKE handle only ASCII.
unicode_locale() {
    locale -a 2>/dev/null | grep -iE '^(C|en_US)\.utf-?8$' | sort | sed -n 1p | grep . ||
        fail "this machine has no UTF-8 locale; install C.UTF-8 or en_US.UTF-8"
}

# `start_postgres <folder with the programs> <folder to create>`; sets POSTGRES_URL.
# The password is random: a superuser can run programs, and the machine may have other users.
start_postgres() {
    local bin=$1 home=$2 locale password port attempt
    locale=$(unicode_locale) || exit 1
    password=$(head -c 1024 /dev/urandom | LC_ALL=C tr -dc 'a-zA-Z0-9' | cut -c 1-32)
    mkdir -p "$home"
    printf '%s\n' "$password" >"$home/password"
    chmod 700 "$home"
    [ "$(id -u)" != 0 ] || chown -R "$(service_account)" "$home"
    (cd "$home" && as_service "$bin/initdb" -D "$home/data" -U postgres --pwfile "$home/password" \
        --auth scram-sha-256 --encoding UTF8 --locale "$locale" --no-sync >"$home/initdb.log" 2>&1) || {
        cat "$home/initdb.log" >&2
        fail "$bin/initdb failed"
    }
    for attempt in 1 2 3 4 5; do
        port=$(free_port)
        # A temporary server needs no durability; tests of crashes start their own servers.
        if (cd "$home" && as_service "$bin/pg_ctl" start -w -t 60 -D "$home/data" -l "$home/log" \
            -o "-h 127.0.0.1 -p $port -k '$home' -c fsync=off -c max_connections=200") >/dev/null 2>&1; then
            POSTGRES_URL="postgres://postgres:$password@127.0.0.1:$port/postgres"
            return 0
        fi
        say "PostgreSQL did not start on port $port (attempt $attempt of 5)"
    done
    cat "$home/log" >&2
    fail "PostgreSQL in $bin did not start"
}

# Stops every server whose data folder is below a folder, including servers left behind by interrupted tests.
stop_postgres_below() {
    local file
    find "$1" -name postmaster.pid -type f 2>/dev/null | while read -r file; do
        # SIGINT is PostgreSQL's fast shutdown, which does not wait for clients to disconnect.
        stop_process "$(head -n 1 "$file")" "$(dirname "$file")" INT
    done
}

# `ask_postgres_version <folder> <url>`: prints the version of a running server, or fails.
ask_postgres_version() {
    PGCONNECT_TIMEOUT=5 "$1/psql" "$2" -XAtc "SELECT split_part(current_setting('server_version'), ' ', 1)"
}
