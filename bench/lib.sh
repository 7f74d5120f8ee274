# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # this file and the script that sources it read each other's variables
# Shared functions of the benchmarks: a work folder and processes that end with the run, statistics, servers, load.
# Sourced from the project's root, not executed. Needs scripts/lib/machine.sh, postgres.sh and redis.sh.

[ -r /proc/self/stat ] || fail "needs /proc (Linux)"

# The path is short, because the paths of sockets below it must fit into a socket address.
work=$(mktemp -d /tmp/pressroom-bench.XXXXXX) || exit 1
chmod 711 "$work"

# One line per process that this run started: its id and a word from its command line.
: >"$work/started"

stop_started() {
    local pid word
    while read -r pid word; do
        stop_process "$pid" "$word" TERM
    done <"$work/started"
    : >"$work/started"
}

finish() {
    local status=$?
    trap '' HUP INT TERM
    stop_started
    stop_postgres_below "$work"
    stop_redis_below "$work"
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM

# `launch <name> <word in its command line> <command...>`: starts the command in the background, with its output in a file;
# sets `launched` to its process id.
launch() {
    local name=$1 word=$2
    shift 2
    "$@" </dev/null >>"$work/$name.log" 2>&1 &
    launched=$!
    say "$launched $word" >>"$work/started"
}

show_log() {
    say "--- the last lines of $1" >&2
    tail -n 20 "$work/$1.log" >&2
}

# --- statistics

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

compute() { awk "BEGIN { printf \"$1\", $2 }"; }

# `ratios <file> <file>`: prints one ratio per round, because the other load on the machine changes from round to round.
ratios() { paste "$1" "$2" | awk '{ printf "%s%.3f", (NR > 1 ? " " : ""), $1 / $2 }'; }

# Prints the mean of the rounds' ratios and its standard error. The mean is geometric, because an arithmetic mean of ratios
# grows with their variance.
mean_ratio() {
    paste "$1" "$2" | awk '{ r = log($1 / $2); sum += r; squares += r * r }
        END { mean = sum / NR; printf "%.3f", exp(mean); if (NR > 1) printf " +- %.3f", exp(mean) * sqrt((squares / NR - mean * mean) / (NR - 1)) }'
}

median_ratio() { paste "$1" "$2" | awk '{ print $1 / $2 }' | median; }

# `reset_peak <pid>`: starts a new measurement of the peak that memory_mib prints.
reset_peak() { { say 5 >"/proc/$1/clear_refs"; } 2>/dev/null; }

# Prints the current and the peak VmRSS of a process.
memory_mib() {
    awk '/^VmHWM:/ { peak = $2 / 1024 } /^VmRSS:/ { printf "%.0f MiB, at most %.0f", $2 / 1024, peak }' "/proc/$1/status"
}

resident_mib() { awk '/^VmRSS:/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

# Prints the processor time used so far by processes and their terminated children, in clock ticks.
ticks() {
    local pid
    for pid in "$@"; do
        # The command name, in parentheses, may contain spaces.
        sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null
    done | awk '{ sum += $12 + $13 + $14 + $15 } END { print sum + 0 }'
}

# Prints the process ids of the postmaster and its children.
postgres_pids() {
    local postmaster
    postmaster=$(head -n 1 "$work/postgres/data/postmaster.pid")
    say "$postmaster"
    cat "/proc/$postmaster/task/$postmaster/children"
}

sql() { "$postgres_bin/psql" "$POSTGRES_URL" -XAtqc "$1"; }

per_second() { sed -n 's/.*"per_second": \([0-9.]*\).*/\1/p'; }

# Describes the machine.
machine() { say "$(grep -m 1 '^model name' /proc/cpuinfo | sed 's/.*: //'), $(nproc) processors; load before the first round $1"; }

# --- programs

# Sets postgres_bin, redis_bin and redis_cli; installs missing programs.
find_servers() {
    command -v curl >/dev/null 2>&1 || install_packages curl curl
    command -v wrk >/dev/null 2>&1 || install_packages wrk wrk
    require_postgres
    require_redis
    redis_cli=$(dirname "$redis_bin")/redis-cli
}

# Sets pressroom to BINARY, or builds it with the `dist` profile.
build_pressroom() {
    pressroom=${BINARY:-}
    if [ -z "$pressroom" ]; then
        say "building pressroom (profile dist)"
        cargo build --quiet --locked --profile dist -p pressroom || fail "pressroom could not be built"
        pressroom=${CARGO_TARGET_DIR:-target}/dist/pressroom
    fi
    [ -x "$pressroom" ] || fail "$pressroom is not an executable file"
}

# `build_throughput <program> <cargo options...>`: sets throughput, the Rust side of the task benchmarks, to the program or
# builds it.
build_throughput() {
    throughput=$1
    shift
    if [ -z "$throughput" ]; then
        say "building the task benchmark (profile dist)"
        throughput=$(cargo bench --locked --profile dist -p celeriac --bench throughput --no-run "$@" 2>&1 |
            tee "$work/build.log" | sed -n 's/.*Executable .*(\(.*\))/\1/p')
        [ -n "$throughput" ] || {
            cat "$work/build.log" >&2
            fail "the task benchmark could not be built"
        }
    fi
    [ -x "$throughput" ] || fail "$throughput is not an executable file"
}

build_tool() { rustc --edition 2024 -O -C strip=symbols -o "$work/$1" "bench/$1.rs" || fail "$1 could not be built"; }

# --- servers

# Starts PostgreSQL with its default durability, which the tests turn off. Also sets postgres_port.
start_durable_postgres() {
    start_postgres "$postgres_bin" "$work/postgres"
    stop_postgres_below "$work"
    postgres_port=${POSTGRES_URL##*:}
    postgres_port=${postgres_port%/*}
    (cd "$work/postgres" && as_service "$postgres_bin/pg_ctl" start -w -t 60 -D "$work/postgres/data" \
        -l "$work/postgres/log" -o "-h 127.0.0.1 -p $postgres_port -k '$work/postgres'") >/dev/null 2>&1 ||
        fail "PostgreSQL could not be restarted"
    [ "$(sql 'SHOW fsync')" = on ] || fail "PostgreSQL runs without fsync"
}

# Starts the OTLP receiver. Sets sink and otlp_port; the file spans contains the number of spans received.
start_sink() {
    build_tool otlp-sink
    otlp_port=$(free_port)
    "$work/otlp-sink" "$otlp_port" "$work/spans" 2>"$work/sink.log" &
    sink=$!
    say "$sink otlp-sink" >>"$work/started"
    wait_until 10 test -s "$work/spans" || fail "the OTLP receiver did not start"
}

spans() {
    # The last batch is exported after a schedule delay of five seconds.
    sleep 6
    cat "$work/spans"
}

# --- the service

migrate() {
    "$pressroom" migrate >"$work/migrate.log" 2>&1 || {
        cat "$work/migrate.log" >&2
        fail "the schema could not be created"
    }
}

is_ready() { curl -fsS -o /dev/null --max-time 2 "http://127.0.0.1:$1/api/health/ready" 2>/dev/null; }

# `serve <name> <VARIABLE=value>...`: starts the service; sets pid and port.
serve() {
    local name=$1
    shift
    for _ in 1 2 3; do
        port=$(free_port)
        env "$@" PORT="$port" "$pressroom" serve >"$work/$name.log" 2>&1 &
        pid=$!
        say "$pid serve" >>"$work/started"
        wait_until 10 is_ready "$port" && return 0
        stop_process "$pid" serve KILL
    done
    cat "$work/$name.log" >&2
    fail "pressroom did not become ready"
}

# `create_articles <port> <count>`: creates a user and articles over HTTP; sets slug to the slug of the last article.
create_articles() {
    local api=http://127.0.0.1:$1/api token body number
    token=$(curl -fsS -H 'content-type: application/json' "$api/register" \
        -d '{"email":"ann@example.com","password":"correct horse battery","name":"Ann"}' | field access_token) ||
        fail "the user could not be registered"
    body=$(printf 'The quick brown fox jumps over the lazy dog. %.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
    for number in $(seq "$2"); do
        slug=$(curl -fsS -H 'content-type: application/json' -H "authorization: Bearer $token" "$api/articles/" \
            -d "{\"title\":\"Article number $number\",\"description\":\"One of $2\",\"body\":\"$body\"}" | field slug) ||
            fail "article $number could not be created"
    done
    sql 'VACUUM ANALYZE' || fail "the tables could not be analysed"
}

# `log_in <port>`: prints a token of the user that create_articles created.
log_in() {
    curl -fsS -H 'content-type: application/json' "http://127.0.0.1:$1/api/login" -d "$login" | field access_token ||
        fail "the login failed"
}
login='{"email":"ann@example.com","password":"correct horse battery"}'

# `request <name> <headers and body in Lua>`: writes a script for wrk.
request() { printf '%s\n' "wrk.headers[\"content-type\"] = \"application/json\"" "$2" >"$work/$1.lua"; }
request_logins() { request login "wrk.method = 'POST'; wrk.body = '$login'"; }
request_creation() {
    request create "wrk.method = 'POST'; wrk.headers[\"authorization\"] = \"Bearer $1\"
wrk.body = '{\"title\": \"Article\", \"description\": \"One\", \"body\": \"' .. string.rep('The quick brown fox. ', 43) .. '\"}'"
}

queue_length() { "$redis_cli" -u "$REDIS_URL" LLEN celery; }
queue_is_empty() { [ "$(queue_length)" = 0 ]; }
outbox_is_empty() { [ "$(sql 'SELECT count(*) FROM outbox')" = 0 ]; }

# Prints the value of a string field in the JSON on standard input.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | grep .; }

# `load <seconds> <port> <name>`: requests the article over 32 connections. Writes each figure into a file in the folder
# round.
load() {
    wrk -t 1 -c 32 -d "${1}s" --latency "http://127.0.0.1:$2/api/articles/$slug" >"$work/wrk.log" 2>&1 ||
        fail "wrk failed"
    if grep -qE 'Non-2xx|Socket errors' "$work/wrk.log"; then
        cat "$work/wrk.log" >&2
        fail "requests failed under load"
    fi
    awk '/^Requests\/sec:/ { print $2 }' "$work/wrk.log" | grep . >"$work/round/$3" || fail "wrk printed no figure"
    awk '/requests in/ { print $1 }' "$work/wrk.log" >"$work/round/$3.requests"
    local percent
    for percent in 50 99; do latency "$percent" >"$work/round/$3.p$percent"; done
}

# `latency <percent>`: prints the percentile in milliseconds from the output of wrk.
latency() {
    awk -v percent="$1%" '$1 == percent { ms = $2 + 0
        if ($2 ~ /us$/) ms /= 1000; else if ($2 ~ /m$/) ms *= 60000; else if ($2 !~ /ms$/) ms *= 1000
        print ms }' "$work/wrk.log"
}

# --- load from other programs

# Prints the processor time used so far on this machine, including steal time, and the total available, in clock ticks.
busy_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $9 }' /proc/stat; }
all_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat; }

# Prints the processor time of this run: the script, the programs it waited for, and the processes it started.
# shellcheck disable=SC2046 # process ids
own_ticks() { ticks $$ $(cut -d ' ' -f 1 "$work/started") $(postgres_pids) "$(cat "$work/redis/redis.pid")"; }

# `measured_rounds <count> <function>`: repeats a function that writes figures into the folder round and a summary into the
# variable figures, until the given number of rounds count. A round in which other programs used more than 5 % of the
# processor time is repeated, within three times the given number. The decision does not depend on the figures.
measured_rounds() {
    local count=$1 measure=$2 round=0 tries=$(($1 * 3)) busy all own others file
    rm -rf "$work/round"
    mkdir "$work/round"
    while [ "$round" -lt "$count" ]; do
        tries=$((tries - 1))
        busy=$(busy_ticks) all=$(all_ticks) own=$(own_ticks)
        "$measure"
        busy=$(($(busy_ticks) - busy)) all=$(($(all_ticks) - all)) own=$(($(own_ticks) - own))
        others=$((busy > own ? (busy - own) * 100 / all : 0))
        figures="$figures; other programs used $others % of the processor time"
        if [ "$others" -gt 5 ] && [ "$tries" -ge "$((count - round))" ]; then
            say "not counted: $figures"
            continue
        fi
        round=$((round + 1))
        say "round $round of $count: $figures"
        say "$others" >"$work/round/others"
        for file in "$work"/round/*; do cat "$file" >>"$work/${file##*/}"; done
    done
}

others_at_most() { sort -n "$work/others" | tail -n 1; }
