# shellcheck shell=bash
# Functions of the scripts: packages, a tool cache, an unprivileged account, a free port, waiting for and stopping processes.
# Sourced, not executed; works with bash 3.2 (macOS).

# Cache of downloaded and built tools, outside of the clone, so a fresh clone does not fetch them again. The folder of a tool
# is named after its version, so clones of different revisions can share the cache.
TOOLS=${PRESSROOM_TOOLS:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/pressroom}
mkdir -p "$TOOLS" && TOOLS=$(cd "$TOOLS" && pwd -P) || exit 1

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Prints the checksum of a file, which becomes part of a folder's name.
checksum() { cksum <"$1" | tr ' ' '-'; }

# `install_once <folder> <command...>`: runs the command, which creates the folder, unless an earlier run completed it.
# Concurrent runs wait for each other.
install_once() {
    local folder=$1 status
    shift
    [ ! -e "$folder/.complete" ] || return 0
    mkdir -p "$(dirname "$folder")" || return 1
    wait_until 900 take_lock "$folder.lock" || fail "another run holds $folder.lock; if no other run exists, remove it"
    if [ ! -e "$folder/.complete" ]; then
        rm -rf "$folder"
        "$@" && touch "$folder/.complete"
        status=$?
    fi
    rm -rf "$folder.lock"
    return "${status:-0}"
}

# Acquires a lock folder; removes the lock of a process that no longer runs.
take_lock() {
    local holder
    if mkdir "$1" 2>/dev/null; then
        say $$ >"$1/pid"
        return 0
    fi
    holder=$(cat "$1/pid" 2>/dev/null) && [ -n "$holder" ] && has_ended "$holder" && rm -rf "$1"
    return 1
}

# Installs packages: `install_packages "<apt names>" "<brew names>"`.
# shellcheck disable=SC2086 # the names are lists
install_packages() {
    if command -v apt-get >/dev/null 2>&1; then
        local root=""
        if [ "$(id -u)" != 0 ]; then
            command -v sudo >/dev/null 2>&1 || fail "cannot install $1: not root, and sudo is missing"
            root="sudo"
        fi
        say "installing $1 (apt-get)"
        # The package list may be missing (fresh container) or stale; it is refreshed only when needed.
        $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $1 >/dev/null 2>&1 ||
            { $root apt-get update -q >/dev/null && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $1 >/dev/null; } ||
            fail "apt-get could not install $1"
    elif command -v brew >/dev/null 2>&1; then
        say "installing $2 (brew)"
        brew install --quiet $2 || fail "brew could not install $2"
    else
        fail "$1 is missing, and neither apt-get nor brew is available to install it"
    fi
}

# Installs Go if it is missing. Go 1.21 and later fetch the version that a go.mod names.
require_go() {
    command -v go >/dev/null 2>&1 || install_packages golang-go go
    [ -n "$(go env GOTOOLCHAIN)" ] || fail "$(go version) is too old, as is the package of Debian 12; install Go 1.21 or later"
}

# Prints the account that servers run as; PostgreSQL refuses to run as root.
service_account() {
    if [ "$(id -u)" != 0 ]; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        say postgres
    else
        say nobody
    fi
}

# Runs a command as the service account.
as_service() {
    local account
    account=$(service_account)
    if [ "$(id -u)" != 0 ]; then
        "$@"
    elif command -v setpriv >/dev/null 2>&1; then
        setpriv --reuid "$account" --regid "$(id -g "$account")" --clear-groups "$@"
    elif command -v runuser >/dev/null 2>&1; then
        runuser -u "$account" -- "$@"
    else
        local words=""
        local word
        for word in "$@"; do words="$words $(printf '%q' "$word")"; done
        su -s /bin/sh "$account" -c "exec$words"
    fi
}

# Prints an unused port below the ephemeral range. Another process can still take it first, so callers retry with another
# port when their server does not start.
free_port() {
    local port
    while :; do
        port=$((15000 + RANDOM % 17000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    say "$port"
}

# `wait_until <seconds> <command...>`: waits until the command succeeds.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

# Prints the command line of a process. Minimal images have no ps, macOS has no /proc.
command_of() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" || ps -p "$1" -o command= 2>/dev/null; }

# `stop_process <pid> <word in its command line> <signal>`: sends the signal, then SIGKILL after ten seconds. The word guards
# against a stale pid file whose number belongs to another process.
stop_process() {
    case $(command_of "$1") in
    *"$2"*) ;;
    *) return 0 ;;
    esac
    kill -s "$3" "$1" 2>/dev/null
    wait_until 10 has_ended "$1" || kill -s KILL "$1" 2>/dev/null
    wait_until 5 has_ended "$1" || say "process $1 could not be stopped"
}
