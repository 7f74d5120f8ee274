#!/usr/bin/env bash
# The checks of scripts/check-compose, which starts this file in its own network, mount and process namespaces: `checks.sh
# <folder>`. If the engine does not start or run containers, exits with 77 and writes the reason into the file `reason`.
set -u

. scripts/lib/machine.sh
. scripts/lib/compose/engine.sh
. scripts/lib/compose/images.sh

work=$1
project=$work/project
api=http://127.0.0.1:8000
# An address of this machine that containers reach, for the receiver of the webhooks.
receiver=198.18.0.1:9000
load=""
trap 'stop_engine' EXIT

compose() {
    env -i PATH="$PATH" HOME="$work" DOCKER_HOST="$DOCKER_HOST" DOCKER_CONFIG="$DOCKER_CONFIG" \
        "$COMPOSE" --ansi never --progress quiet --project-directory "$project" "$@"
}

# `show_log <service>`: shows the ends of its log and of its health checks' output.
show_log() {
    say "--- the last lines of $1"
    compose logs --no-color --no-log-prefix --tail 20 "$1" | cut -c 1-200
    docker inspect --format '{{with .State.Health}}{{range .Log}}health check: {{.ExitCode}}, {{.Output}}{{end}}{{end}}' \
        "$(container "$1")" | tail -n 3
} >&2

# `stop_at <service> <cause>`: shows the service's log and ends the run.
stop_at() {
    show_log "$1"
    fail "$2"
}

# `show_logs <lines of unhealthy>`
show_logs() {
    local service
    while read -r service; do show_log "$service"; done < <(sed -n 's/: created.*//; s/:.*//p' <<<"$1")
}

started=$SECONDS
step() {
    say "$((SECONDS - started)) s: $*"
}

container() { compose ps --all --quiet "$1"; }

# --- the project, and the images

mkdir -p "$project" "$work/images"
cp -R compose.yaml .env.example config deploy "$project/"
# The shorter intervals only save waiting.
sed -i 's/_interval: 15s/_interval: 2s/' "$project/deploy/grafana/prometheus.yaml"
{
    sed -e 's/^SECRET_KEY=.*/SECRET_KEY=0123456789abcdef0123456789abcdef/' \
        -e 's/^POSTGRES_PASSWORD=.*/POSTGRES_PASSWORD=0123456789abcdef/' .env.example
    say "WEBHOOK_URL=http://$receiver/"
    say "WEBHOOK_SECRET=whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    say "RATE_LIMIT=off"
    say "OTEL_METRIC_EXPORT_INTERVAL=2000"
} >"$project/.env"

{ ip link set lo up && ip address add "${receiver%:*}/32" dev lo; } || fail "the network namespace could not be set up"
# systemd, which would create the control groups by default, does not see these processes' ids.
start_engine "$work/engine" --exec-opt native.cgroupdriver=cgroupfs || {
    engine_error "$work/engine" >"$work/reason"
    exit 77
}
say "Docker $(docker version --format '{{.Server.Version}}'), $("$COMPOSE" version)"

# `image_of <service>`
image_of() {
    compose --profile '*' config --format json |
        python3 -c "import json, sys; print(json.load(sys.stdin)['services']['$1']['image'])"
}

# `make_image <service> <argument...>`
make_image() {
    local service=$1 image root=$work/images/$1
    shift
    image=$(image_of "$service") || fail "compose.yaml has no service $service"
    ! docker image inspect "$image" >/dev/null 2>&1 || return 0
    mkdir "$root"
    "make_$service" "$root" "$image" "$@" || fail "the image of $service could not be made"
    rm -rf "$root"
}

make_app() { make_pressroom "$@"; }
make_otel-collector() { make_collector "$@"; }

make_image redis "$REDIS"
docker run --rm --memory 256m "$(image_of redis)" redis-server --version >"$work/reason" 2>&1 || exit 77
make_image app "${PRESSROOM:-}"
make_image postgres "$work/postgres18"
make_image otel-collector "$COLLECTOR"
make_image prometheus "$PROMETHEUS_TOOLS/prometheus"

# --- up, healthy

# Prints each container that is neither healthy nor, as a task, successful.
unhealthy() {
    local service state health
    compose --profile '*' ps --all --format '{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}' |
        while read -r service state health; do
            case "$service $state $health" in
            "migrate exited 0" | "otel-collector running 0" | "prometheus running 0" | *" running healthy 0") ;;
            *) say "$service: $state, $health" ;;
            esac
        done
}
is_healthy() { [ -z "$(unhealthy)" ]; }

health() { curl -sS --max-time 5 "$api/api/health" 2>&1; }
works() {
    health | grep -q '^{"status":"healthy"' &&
        curl -fsS --max-time 5 -o "$work/collector" http://127.0.0.1:13133 2>/dev/null
}

# `start <situation> <option...>`: starts the system and waits until it works.
start() {
    local situation=$1
    shift
    if ! compose "$@" up --detach --no-build --pull never >"$work/up" 2>&1; then
        show_logs "$(unhealthy)"
        fail "$situation: docker compose up: $(tail -n 1 "$work/up")"
    fi
    wait_until 90 works || stop_at app "$situation: not healthy after 90 s: $(health)"
}

start "the first start"
wait_until 120 is_healthy || {
    show_logs "$(unhealthy)"
    fail "the first start: not healthy after 120 s: $(unhealthy)"
}
[ "$(compose ps --all --quiet | wc -l)" = 6 ] || fail "docker compose up did not start six containers"
step "all containers are healthy"
start "Prometheus" --profile prometheus

# --- requests

BASE_URL=$api scripts/test-api.sh >"$work/api" 2>&1 || {
    grep -iE 'fail' "$work/api" >&2
    fail "scripts/test-api.sh failed"
}
step "$(tail -n 1 "$work/api")"

# `begin_load [faults]`, then `end_load <situation>`
begin_load() {
    rm -rf "$work/load" && mkdir "$work/load"
    REQUESTS=60 python3 scripts/lib/traffic.py "$api" "$receiver" "$work/load" "$@" >"$work/load/log" 2>&1 &
    load=$!
    wait_until 30 test -e "$work/load/steady" || {
        cat "$work/load/log" >&2
        stop_at app "the load could not start"
    }
}
end_load() {
    kill "$load"
    wait "$load" || {
        cat "$work/load/log" >&2
        stop_at worker "$1: see the counts above"
    }
    grep -E '^(requests|failed requests|notifications)' "$work/load/log"
}
read_back() {
    PYTHONDONTWRITEBYTECODE=1 python3 scripts/lib/compose/read_back.py "$api" "$work/load/acknowledged" ||
        fail "$1: acknowledged articles are lost"
}

begin_load
evaluate() { python3 scripts/lib/compose/expressions.py http://127.0.0.1:9090 >"$work/expressions" 2>&1; }
wait_until 60 evaluate || {
    cat "$work/expressions" >&2
    stop_at otel-collector "Prometheus: see the problems above"
}
end_load "load without faults"
step "$(tail -n 1 "$work/expressions")"
# zPages cannot show the collector's own traces, which are off by default.
! compose logs --no-log-prefix otel-collector | grep -E '\s(warn|error)\s' | grep -v zpages | sed -n '1,5p' | grep . ||
    fail "the collector logs warnings, see above"

# --- faults

has_restarted() { [ "$(docker inspect --format '{{.RestartCount}} {{.State.Running}}' "$1")" = "$2 true" ]; }

# `kill_process <service>`
kill_process() {
    local id restarts begin=$SECONDS
    id=$(container "$1")
    restarts=$(docker inspect --format '{{.RestartCount}}' "$id")
    kill -s KILL "$(docker inspect --format '{{.State.Pid}}' "$id")" || fail "$1 has no process"
    wait_until 30 has_restarted "$id" $((restarts + 1)) || stop_at "$1" "$1: not restarted 30 s after SIGKILL"
    wait_until 90 works || stop_at "$1" "$1: 90 s after SIGKILL, the system is not healthy: $(health)"
    step "$1: killed, works again after $((SECONDS - begin)) s"
}

# `use_version <version>`: changes PRESSROOM_VERSION in .env.
use_version() {
    sed -i '/^PRESSROOM_VERSION=/d' "$project/.env"
    [ -z "$1" ] || say "PRESSROOM_VERSION=$1" >>"$project/.env"
}
sql() { compose exec -T postgres psql -U pressroom -d pressroom -XAtqc "$1"; }

begin_load faults
for service in app worker postgres redis otel-collector; do
    kill_process "$service"
done

# The newer release adds to the schema; this release then runs on it.
docker tag "$(image_of app)" pressroom:newer
use_version newer
start "the upgrade"
uses_newer() { [ "$(docker inspect --format '{{.Config.Image}}' "$(container "$1")")" = pressroom:newer ]; }
{ uses_newer app && uses_newer worker; } || fail "the upgrade did not replace app and worker"
sql "ALTER TABLE articles ADD COLUMN added_later text;
    INSERT INTO refinery_schema_history
        SELECT max(version) + 1, 'added_later', max(applied_on), '1' FROM refinery_schema_history" ||
    fail "the newer schema could not be made"
use_version ""
start "the rollback"
! { uses_newer app || uses_newer worker; } || fail "the rollback did not replace app and worker"
compose logs --no-log-prefix migrate | grep -q 'newer' || stop_at migrate "the rollback: migrate did not find a newer schema"
step "upgraded and rolled back, on a newer schema"

begin=$SECONDS
compose stop || fail "docker compose stop failed"
seconds=$((SECONDS - begin))
for service in app worker postgres redis otel-collector; do
    code=$(docker inspect --format '{{.State.ExitCode}}' "$(container $service)")
    # 137: the process was killed when its stop_grace_period ended.
    [ "$code" = 0 ] || stop_at "$service" "$service: exit code $code at the stop"
done
step "stopped within $seconds s, each process with exit code 0"

start "the start after the stop"
end_load "load with faults"
read_back "kills, upgrade, rollback and stop"

compose --profile '*' down >"$work/down" 2>&1 || {
    cat "$work/down" >&2
    fail "docker compose down failed"
}
start "the start after docker compose down"
read_back "docker compose down and up"
compose logs --no-log-prefix migrate | grep -q newer || stop_at migrate "docker compose down has lost the schema"
compose down --volumes >"$work/down" 2>&1
step "all checks passed"
