# shellcheck shell=bash
# Starts and stops a Docker engine of its own, with its data, socket and configuration below one folder. Needs machine.sh.

# `start_engine <folder> <option...>`: sets DOCKER_HOST and DOCKER_CONFIG; fails if the engine does not answer.
start_engine() {
    local folder=$1
    shift
    mkdir -p "$folder/config"
    say '{}' >"$folder/daemon.json"
    export DOCKER_HOST=unix://$folder/docker.sock DOCKER_CONFIG=$folder/config
    dockerd --config-file "$folder/daemon.json" --data-root "$folder/data" --exec-root "$folder/exec" \
        --pidfile "$folder/dockerd.pid" --host "$DOCKER_HOST" "$@" </dev/null >>"$folder/dockerd.log" 2>&1 &
    engine=$!
    wait_until 120 engine_answers_or_ended && engine_answers
}

engine_answers() { docker version >/dev/null 2>&1; }

engine_answers_or_ended() { engine_answers || has_ended "$engine"; }

# Prints the reason of the engine's end.
engine_error() { grep -E 'level=(error|fatal)|^failed' "$1/dockerd.log" | tail -n 1 | grep . || tail -n 1 "$1/dockerd.log"; }

stop_engine() {
    [ -n "${engine:-}" ] || return 0
    docker ps --quiet 2>/dev/null | xargs -r docker kill >/dev/null 2>&1
    kill "$engine" 2>/dev/null
    wait_until 30 has_ended "$engine" || kill -s KILL "$engine"
    wait "$engine" 2>/dev/null
    engine=""
}
