# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Finds Redis, and starts and stops private servers. Needs machine.sh.

# Prints the path of redis-server, or fails.
find_redis() {
    local file
    for file in "$(command -v redis-server)" /opt/homebrew/bin/redis-server /usr/local/bin/redis-server; do
        if [ -x "$file" ]; then
            say "$file"
            return 0
        fi
    done
    return 1
}

# Sets redis_bin to the path of redis-server; installs Redis if it is missing.
require_redis() {
    redis_bin=$(find_redis) && return 0
    install_packages redis-server redis
    redis_bin=$(find_redis) || fail "Redis was installed, but redis-server was not found"
}

# `redis_field <redis-server> <url> <field>`: prints a field of INFO; fails when the server does not respond.
redis_field() {
    local cli
    cli=$(dirname "$1")/redis-cli
    [ -x "$cli" ] || cli=redis-cli
    "$cli" -u "$2" INFO server 2>/dev/null </dev/null | tr -d '\r' | sed -n "s/^$3://p" | grep .
}

# `start_redis <redis-server> <folder to create>`; sets REDIS_URL.
start_redis() {
    local server=$1 home=$2 port attempt
    mkdir -p "$home"
    for attempt in 1 2 3 4 5; do
        port=$(free_port)
        REDIS_URL="redis://127.0.0.1:$port/0"
        run_redis "$server" "$home" "$port" && return 0
        say "Redis did not start on port $port (attempt $attempt of 5)"
    done
    cat "$home/log" >&2
    fail "$server did not start"
}

# `run_redis <redis-server> <folder> <port>`: starts a server without persistence; fails unless it is the one that responds at
# REDIS_URL.
run_redis() {
    rm -f "$2/redis.pid"
    "$1" --port "$3" --bind 127.0.0.1 --save "" --appendonly no --dir "$2" \
        --daemonize yes --pidfile "$2/redis.pid" --logfile "$2/log" >/dev/null 2>&1
    wait_until 10 redis_is_ours "$1" "$2"
}

# Whether the responding server wrote the pid file; another server could have taken the port.
redis_is_ours() {
    [ -s "$2/redis.pid" ] && [ "$(redis_field "$1" "$REDIS_URL" process_id)" = "$(cat "$2/redis.pid")" ]
}

# Stops every server whose pid file is below a folder.
stop_redis_below() {
    local file
    find "$1" -name redis.pid -type f 2>/dev/null | while read -r file; do
        stop_process "$(cat "$file")" redis TERM
    done
}
