# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # this file, bench/lib.sh and bench/run read each other's variables
# Measurements of bench/run under mixed load: reads while others write or log in, the path of tasks, and lists at several
# sizes. Sourced by bench/run. Each function appends lines to the file rows.

# `row <text> <figures>`
row() { printf '%-37s %s\n' "$1" "$2" >>"$work/rows"; }

# `per_item <ticks> <count>`: prints microseconds.
per_item() { compute "%.0f" "$1 * 1000000 / $(getconf CLK_TCK) / $2"; }

# `start_beside <clients> <script> <path>`: starts a load on the service in the background.
start_beside() {
    wrk -t 1 -c "$1" -d "$((seconds + 1))s" --timeout 30s -s "$work/$2.lua" "http://127.0.0.1:$mixed_port/api$3" >"$work/beside.log" 2>&1 &
    beside=$!
    say "$beside wrk" >>"$work/started"
    sleep 0.5
}

# Waits for the background load; sets beside_count and beside_failed to the numbers of its requests.
await_beside() {
    wait "$beside" || fail "wrk failed"
    beside_count=$(awk '/requests in/ { print $1 }' "$work/beside.log")
    beside_failed=$(awk '/Non-2xx/ { print $NF }' "$work/beside.log")
    beside_failed=${beside_failed:-0}
}

# `round_beside <name> <clients> <script> <path> [lock]`: reads alone, then reads alongside another load. If `lock` is given,
# another transaction holds it meanwhile.
round_beside() {
    local holder=""
    load "$seconds" "$mixed_port" "$1.alone"
    if [ -n "${5:-}" ]; then
        sql "BEGIN; $5; SELECT pg_sleep($((seconds + 2))); ROLLBACK" >/dev/null &
        holder=$!
    fi
    start_beside "$2" "$3" "$4"
    load "$seconds" "$mixed_port" "$1.beside"
    await_beside
    [ -z "$holder" ] || wait "$holder" || fail "the lock was not held"
    say "$beside_count" >"$work/round/$1.others"
    say "$beside_failed" >"$work/round/$1.failed"
    figures="reads $(cat "$work/round/$1.alone")/s alone, $(cat "$work/round/$1.beside")/s alongside $beside_count requests"
}

# `row_beside <name> <text>`
row_beside() {
    row "$2" "$(compute "%.0f" "$(median <"$work/$1.beside")") per second, p99 $(median <"$work/$1.beside.p99") ms; alone $(
        compute "%.0f" "$(median <"$work/$1.alone")"), $(median <"$work/$1.alone.p99") ms; ratio of p99 $(
        compute "%.1f" "$(median_ratio "$work/$1.beside.p99" "$work/$1.alone.p99")"), of rates $(
        compute "%.2f" "$(median_ratio "$work/$1.beside" "$work/$1.alone")")"
    row "" "$(sum "$1.others") such requests, $(sum "$1.failed") of them failed; memory $(memory_mib "$mixed")"
}

sum() { awk '{ sum += $1 } END { print sum }' "$work/$1"; }

round_with_creation() { round_beside creation 32 create /articles/; }
round_in_storm() { round_beside storm 64 login /login; }
round_with_row_locked() {
    round_beside row-locked 16 favorite "/articles/$locked/favorite" "SELECT FROM articles WHERE slug = '$locked' FOR UPDATE"
}
round_with_table_locked() { round_beside table-locked 16 create /articles/ "LOCK TABLE articles IN SHARE MODE"; }

is_published() { outbox_is_empty; }
# Asks PostgreSQL last, because each of psql's connections costs it some processor time, which would count as that of articles.
is_finished() { queue_is_empty && [ "$("$redis_cli" -u "$REDIS_URL" HLEN unacked)" = 0 ] && outbox_is_empty; }

# `round_of_creation <name> <condition>`: creates articles and waits until their tasks meet the condition. Records articles
# per second, from the first request to the condition, and the ticks of each process.
# shellcheck disable=SC2046 # process ids
round_of_creation() {
    local s p w r started
    s=$(ticks "$mixed") p=$(ticks $(postgres_pids)) w=$(ticks "${worker:-0}") r=$(ticks "$(cat "$work/redis/redis.pid")")
    started=$(date +%s%N)
    start_beside 16 create /articles/
    await_beside
    [ "$beside_failed" = 0 ] || fail "articles could not be created"
    wait_until 300 "$2" || fail "tasks are left"
    compute "%.0f\n" "$beside_count * 1e9 / ($(date +%s%N) - $started)" >"$work/round/$1"
    say "$beside_count" >"$work/round/$1.count"
    say "$(($(ticks "$mixed") - s))" >"$work/round/$1.service"
    say "$(($(ticks $(postgres_pids)) - p))" >"$work/round/$1.postgres"
    say "$(($(ticks "${worker:-0}") - w))" >"$work/round/$1.worker"
    say "$(($(ticks "$(cat "$work/redis/redis.pid")") - r))" >"$work/round/$1.redis"
    figures="$(cat "$work/round/$1") articles per second"
}
round_published() { round_of_creation published is_published; }
round_finished() { round_of_creation finished is_finished; }

# `row_of_creation <name> <text>`
row_of_creation() {
    local count service postgres
    count=$(sum "$1.count") service=$(sum "$1.service") postgres=$(sum "$1.postgres")
    row "$2" "$(median <"$work/$1") per second; pressroom $(per_item "$service" "$count") us, PostgreSQL $(
        per_item "$postgres" "$count") us, together $(per_item "$((service + postgres))" "$count") us; worker $(
        per_item "$(sum "$1.worker")" "$count") us, Redis $(per_item "$(sum "$1.redis")" "$count") us"
    row "" "$count articles; memory $(memory_mib "$mixed")"
}

# Records the rate at which a backlog reaches Redis, within a time limit, while articles are read.
round_of_backlog() {
    local published
    "$redis_cli" -u "$REDIS_URL" DEL celery >/dev/null
    load "$seconds" "$mixed_port" backlog.alone
    sql "INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
        SELECT gen_random_uuid(), 'app.jobs.tasks.send_article_notification', '[1, \"created\"]', '{}', now, now
        FROM generate_series(1, $backlog), (SELECT now() AT TIME ZONE 'UTC' AS now) AS times" ||
        fail "the backlog could not be inserted"
    rate_of_publishing >"$work/round/backlog" &
    published=$!
    load "$seconds" "$mixed_port" backlog.beside
    wait "$published"
    figures="$(cat "$work/round/backlog") tasks per second; reads $(cat "$work/round/backlog.alone")/s alone, $(cat "$work/round/backlog.beside")/s meanwhile"
}

backlog_is_published() { [ "$(queue_length)" -ge "$backlog" ]; }

rate_of_publishing() {
    local started
    started=$(date +%s%N)
    wait_until 30 backlog_is_published
    compute "%.0f\n" "$(queue_length) * 1e9 / ($(date +%s%N) - $started)"
}

# Starts a service without rate limits. Sets mixed and mixed_port.
serve_mixed() {
    serve mixed RATE_LIMIT=off
    mixed=$pid mixed_port=$port
    request_logins
    token=$(log_in "$mixed_port")
    request_creation "$token"
    request favorite "wrk.method = 'POST'; wrk.headers[\"authorization\"] = \"Bearer $token\""
    locked=$(sql "SELECT slug FROM articles WHERE slug <> '$slug' LIMIT 1")
    load 2 "$mixed_port" warm-up
}

measure_mixed() {
    serve_mixed
    reset_peak "$mixed"
    measured_rounds "$rounds" round_with_creation
    row_beside creation "reads while 32 clients create"
    wait_until 300 outbox_is_empty || fail "tasks are left in the outbox"
    reset_peak "$mixed"
    measured_rounds "$rounds" round_in_storm
    row_beside storm "reads while 64 clients log in"
    reset_peak "$mixed"
    measured_rounds "$rounds" round_with_row_locked
    row_beside row-locked "reads while 16 wait for a row"
    reset_peak "$mixed"
    measured_rounds "$rounds" round_with_table_locked
    row_beside table-locked "reads while 16 wait for a table"
    wait_until 300 outbox_is_empty || fail "tasks are left in the outbox"
    reset_peak "$mixed"
    measured_rounds "$rounds" round_published
    row_of_creation published "article created, its task published"

    # A reader who is notified of each article.
    local reader
    reader=$(curl -fsS -H 'content-type: application/json' "http://127.0.0.1:$mixed_port/api/register" \
        -d '{"email":"bob@example.com","password":"correct horse battery","name":"Bob"}' | field access_token) ||
        fail "the reader could not be registered"
    curl -fsS -o /dev/null -X POST -H "authorization: Bearer $reader" "http://127.0.0.1:$mixed_port/api/articles/$slug/favorite" ||
        fail "the article could not be favourited"
    "$pressroom" worker >"$work/worker.log" 2>&1 &
    worker=$!
    say "$worker worker" >>"$work/started"
    wait_until 600 is_finished || fail "the worker did not run all tasks"
    reset_peak "$mixed"
    measured_rounds "$rounds" round_finished
    row_of_creation finished "article created, its reader notified"
    row "" "memory of the worker $(memory_mib "$worker")"
    stop_process "$worker" worker TERM

    reset_peak "$mixed"
    measured_rounds "$rounds" round_of_backlog
    row "backlog of $backlog tasks published" "$(median <"$work/backlog") per second; reads meanwhile at $(
        compute "%.2f" "$(median_ratio "$work/backlog.beside" "$work/backlog.alone")") times their normal rate"
    row "" "memory $(memory_mib "$mixed")"
    stop_process "$mixed" serve TERM
}

# `timed <name> <script> <path>`: requests a list over eight connections; records the median and the share of failures.
timed() {
    wrk -t 1 -c 8 -d "${seconds}s" --timeout 30s --latency -s "$work/$2.lua" "http://127.0.0.1:$lists_port$3" >"$work/wrk.log" 2>&1 ||
        fail "wrk failed"
    latency 50 >"$work/lists.$1"
    awk '/requests in/ { count = $1 } /Non-2xx/ { failed = $NF } END { printf "%.0f", count ? failed * 100 / count : 100 }' \
        "$work/wrk.log" >"$work/lists.$1.failed"
}

# `describe <kind> <size>`: prints the median, and its ratio to that of the smallest size.
describe() {
    local smallest=${sizes%% *} failed
    failed=$(cat "$work/lists.$1.$2.failed")
    printf '%s %s ms (%s)' "$1" "$(cat "$work/lists.$1.$2")" \
        "$(compute "%.1f" "$(cat "$work/lists.$1.$2") / $(cat "$work/lists.$1.$smallest")")"
    [ "$failed" = 0 ] || printf ', %s %% failed' "$failed"
}

# `measure_searches <size>`: reads an article, registers users and deletes articles while 64 clients search.
measure_searches() {
    local mixed_port=$lists_port token slug_to_delete number worst failed
    token=$(log_in "$lists_port")
    start_beside 64 search /
    load "$seconds" "$lists_port" searches
    await_beside
    row "reads while 64 search $1 articles" "$(cat "$work/round/searches") per second, p99 $(cat "$work/round/searches.p99") ms"
    row "" "$beside_count searches, $beside_failed of them failed; memory $(memory_mib "$lists")"
    start_beside 64 search /
    for number in $(seq 20); do
        slug_to_delete=more-$((number + 100))
        curl -sS -o /dev/null -w '%{http_code} %{time_total}\n' -H 'content-type: application/json' \
            "http://127.0.0.1:$lists_port/api/register" \
            -d "{\"email\":\"user-$number@example.com\",\"password\":\"correct horse battery\",\"name\":\"User\"}"
        curl -sS -o /dev/null -w '%{http_code} %{time_total}\n' -X DELETE -H "authorization: Bearer $token" \
            "http://127.0.0.1:$lists_port/api/articles/$slug_to_delete"
    done >"$work/writes"
    await_beside
    worst=$(awk '{ print $2 * 1000 }' "$work/writes" | sort -n | tail -n 1)
    failed=$(grep -cv '^20[14] ' "$work/writes")
    row "writes while 64 search $1 articles" "20 registrations, 20 deletions, $failed of them failed; longest $worst ms"
}

# Measures lists of 20 articles in a separate database. Every title shares a word with nineteen others.
measure_lists() {
    local POSTGRES_URL=${POSTGRES_URL%/*}/lists size cursor slug
    "$postgres_bin/psql" "${POSTGRES_URL%/*}/postgres" -XAtqc 'CREATE DATABASE lists' || fail "the database could not be created"
    DATABASE_URL=$POSTGRES_URL migrate
    serve lists DATABASE_URL="$POSTGRES_URL" RATE_LIMIT=off
    lists=$pid lists_port=$port
    create_articles "$lists_port" 1
    request list ''
    sql "SELECT '/api/articles/?search=' || substr(md5(n::text), 1, 10) FROM generate_series(1, 999) AS n" >"$work/words"
    for size in $sizes; do
        say "lists of $size articles"
        sql "INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
            SELECT 'more-' || n, 'Article ' || substr(md5((n / 20)::text), 1, 10), 'One', repeat('The quick brown fox. ', 43),
                1, 0, timestamp '2020-01-01' + n * interval '1 second', '2020-01-01'
            FROM generate_series((SELECT count(*) FROM articles), $size - 1) AS n" || fail "the articles could not be inserted"
        # Without the checkpoint, the server would still write the inserted rows while lists are measured.
        { sql 'VACUUM ANALYZE' && sql CHECKPOINT; } || fail "the tables could not be analysed"
        head -n "$((size / 20 - 1))" "$work/words" >"$work/used-words"
        printf '%s\n' "local paths, n = {}, 0" "for path in io.lines('$work/used-words') do paths[#paths + 1] = path end" \
            "request = function() n = n % #paths + 1; return wrk.format('GET', paths[n]) end" >"$work/search.lua"
        cursor=$(curl -fsS --max-time 60 "http://127.0.0.1:$lists_port/api/articles/?page=$((size / 40))" | field next_cursor) ||
            fail "the page in the middle cannot be read"
        reset_peak "$lists"
        timed "first.$size" list /api/articles/
        timed "cursor.$size" list "/api/articles/?cursor=$cursor"
        timed "search.$size" search /
        row "list of 20 of $size articles, p50" "$(describe first "$size"), $(describe cursor "$size"), $(describe search "$size")"
        row "" "memory $(memory_mib "$lists")"
    done
    measure_searches "${sizes##* }"
    stop_process "$lists" serve TERM
}
