#!/usr/bin/env bash
# Tests every endpoint of a running server, for success and failure.
#
#   BASE_URL=http://localhost:8000 scripts/test-api.sh
#
# Needs bash 3.2 or newer and curl. Every run creates its own users and articles, so it can be repeated against the same
# server; it deletes the articles at the end. The requests also produce example traces, metrics and logs.
set -u

BASE_URL=${BASE_URL:-http://localhost:8000}
BASE_URL=${BASE_URL%/}

passed=0
failed=0
run=$(date +%s)$$
folder=$(mktemp -d "${TMPDIR:-/tmp}/test-api.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT

# --- one request

# `request <method> <path> [body]` sets these variables. `with` has curl options for the next request; `token` is sent if
# it is set.
status="" body="" headers=""
with=() token=""

request() {
    method=$1 path=$2
    local options tries=0
    options=(--silent --show-error --max-time 60 --dump-header "$folder/headers" --output "$folder/body")
    case $method in
    # With --request HEAD, curl would wait for a body.
    HEAD) options=("${options[@]}" --head) ;;
    *) options=("${options[@]}" --request "$method") ;;
    esac
    [ -z "$token" ] || options=("${options[@]}" --header "Authorization: Bearer $token")
    [ $# -lt 3 ] || options=("${options[@]}" --header "Content-Type: application/json" --data-binary "$3")
    [ ${#with[@]} -eq 0 ] || options=("${options[@]}" "${with[@]}")
    with=()
    while :; do
        : >"$folder/headers"
        : >"$folder/body"
        status=$(curl "${options[@]}" --write-out '%{http_code}' "$BASE_URL$path" 2>"$folder/error")
        headers=$(tr -d '\r' <"$folder/headers")
        # Registrations and logins are rate-limited, so frequent runs have to wait.
        if [ "$status" != 429 ] || [ "$tries" -ge 3 ]; then break; fi
        tries=$((tries + 1))
        local pause
        pause=$(header retry-after)
        echo "      rate-limited, waiting ${pause:-5} s"
        sleep "${pause:-5}"
    done
    if [ "$method" = HEAD ]; then
        body=""
    else
        # Normalises white space.
        body=$(tr -d '\n\000' <"$folder/body" | sed 's/": */":/g; s/, *"/,"/g')
    fi
}

# Prints the value of a response header, if any. The name must be in lower case.
header() {
    printf '%s\n' "$headers" | awk -v name="$1" '
        { colon = index($0, ":") }
        colon && tolower(substr($0, 1, colon - 1)) == name { value = substr($0, colon + 1); sub(/^ */, "", value) }
        END { print value }'
}

# Prints a string member of the body, if any; the last one if there are several.
member() { printf '%s\n' "$body" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# Prints the number of occurrences of a text in the body.
count() { printf '%s\n' "$body" | awk -v text="$1" '{ n += gsub(text, "") } END { print n + 0 }'; }

# Prints the trace id in the traceresponse header.
trace_id() { header traceresponse | sed -n 's/^00-\([0-9a-f]\{32\}\)-.*/\1/p'; }

# --- one check

# `verdict <name> <problem>`: the check passes if the problem is empty.
verdict() {
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        printf 'ok    %s\n' "$1"
    else
        failed=$((failed + 1))
        printf 'FAIL  %s\n      %s %s: %s\n' "$1" "$method" "$path" "$2"
        printf '      response: %s %.300s\n' "$status" "$body"
        [ ! -s "$folder/error" ] || sed 's/^/      /' "$folder/error"
    fi
}

# `expect <name> <status> [text in the body]...`: also checks the parts that every response must have.
expect() {
    local name=$1 wanted=$2 problem="" text
    shift 2
    [ "$status" = "$wanted" ] || problem="expected $wanted, got $status"
    for text in "$@"; do
        case $body in
        *"$text"*) ;;
        *) problem="$problem${problem:+; }the body lacks $text" ;;
        esac
    done
    [ -n "$(trace_id)" ] || problem="$problem${problem:+; }no traceresponse header"
    if [ "$wanted" -ge 400 ] && [ "$method" != HEAD ]; then
        for text in '"error":{' '"code":"' '"message":"' "\"status_code\":$wanted" "\"trace_id\":\"$(trace_id)\""; do
            case $body in
            *"$text"*) ;;
            *) problem="$problem${problem:+; }the error lacks $text" ;;
            esac
        done
    fi
    verdict "$name" "$problem"
}

# `expect_header <name> <header> <shell pattern>`
expect_header() {
    local value
    value=$(header "$2")
    # shellcheck disable=SC2254 # the pattern is intentional
    case $value in
    $3) verdict "$1" "" ;;
    *) verdict "$1" "header $2 is \"$value\"" ;;
    esac
}

# `expect_same <name> <expected> <actual>`
expect_same() {
    if [ "$2" = "$3" ]; then verdict "$1" ""; else verdict "$1" "expected \"$2\", got \"$3\""; fi
}

section() { printf '\n%s\n' "$1"; }

if ! curl --silent --output /dev/null --max-time 10 "$BASE_URL/api/health/live"; then
    echo "no server responds at $BASE_URL (set BASE_URL, or start one with: cargo run --release)"
    exit 1
fi
echo "testing $BASE_URL"

# --- the tests

section "Health"
request GET /api/health
expect "the service is healthy" 200 '"database":"healthy"' '"redis":"healthy"' '"celery":"' '"name":"' '"version":"'
[ "$(member celery)" = healthy ] || echo "      no task worker is running; notifications wait until one starts"
expect_header "responses forbid content sniffing" x-content-type-options nosniff
request HEAD /api/health
expect "HEAD returns the status of GET" 200
request GET /api/health/live
expect "the process is live" 200
request GET /api/health/ready
expect "the service is ready" 200
request GET /api/health/
expect "a trailing slash is a different path" 404
request POST /api/health
expect "health rejects POST" 405
expect_header "a 405 lists the allowed methods" allow '*GET*'

section "Registration"
alice=alice-$run@example.com
bob=bob-$run@example.com
request POST /api/register "{\"email\": \"$alice\", \"name\": \"Alice\", \"password\": \"password123\"}"
expect "Alice registers" 201 "\"email\":\"$alice\"" '"name":"Alice"' '"token_type":"Bearer"' '"id":' '"bio":' '"image":' '"created_at":"'
alice_token=$(member access_token)
request POST /api/register "{\"email\": \"$bob\", \"name\": \"Bob\", \"password\": \"password123\"}"
expect "Bob registers" 201 "\"email\":\"$bob\""
bob_token=$(member access_token)
request POST /api/register "{\"email\": \"ALICE-$run@example.com\", \"name\": \"Other\", \"password\": \"password123\"}"
expect "a registered e-mail is rejected regardless of case" 409 '"message":"Email already registered"'
request POST /api/register '{"email": "not an e-mail", "password": "short"}'
expect "all errors of all fields are reported" 400 '"email":["Not a valid email address."]' \
    '"password":["Shorter than minimum length 6."]' '"name":["Missing data for required field."]'
request POST /api/register "{\"email\": null, \"name\": 5, \"password\": \"password123\", \"admin\": true}"
expect "null, wrong types and unknown fields are rejected" 400 '"email":["Field may not be null."]' \
    '"name":["Not a valid string."]' '"admin":["Unknown field."]'
request GET /api/register
expect "registration rejects GET" 405
expect_header "a 405 lists the allowed methods" allow '*POST*'
request OPTIONS /api/register
expect "OPTIONS is allowed" 200
expect_header "OPTIONS lists the allowed methods" allow '*POST*'

section "Login"
request POST /api/login "{\"email\": \"$alice\", \"password\": \"password123\"}"
expect "Alice logs in" 200 "\"email\":\"$alice\"" '"token_type":"Bearer"'
login_token=$(member access_token)
request POST /api/login "{\"email\": \"ALICE-$run@EXAMPLE.COM\", \"password\": \"password123\"}"
expect "login ignores the case of the e-mail" 200 "\"email\":\"$alice\""
request POST /api/login "{\"email\": \"$alice\", \"password\": \"wrong password\"}"
expect "a wrong password is rejected" 401 '"message":"Invalid credentials"'
request POST /api/login "{\"email\": \"nobody-$run@example.com\", \"password\": \"password123\"}"
expect "an unknown e-mail is rejected with the same message" 401 '"message":"Invalid credentials"'
request POST /api/login '{}'
expect "login requires both fields" 400 '"email":["Missing data for required field."]' '"password":["Missing data for required field."]'
request POST /api/login '{"email": '
expect "malformed JSON is rejected" 400
request POST /api/login '["a"]'
expect "a body that is not an object is rejected" 400 '"_schema":["Invalid input type."]'
with=(--header "Content-Type: text/plain" --data-binary '{"email": "a@example.com"}')
request POST /api/login
expect "a body that is not JSON is rejected" 415

section "User"
request GET /api/user
expect "the profile requires a token" 401 '"message":"Missing or invalid authorization header"'
with=(--header "Authorization: Basic YTpi")
request GET /api/user
expect "another authentication scheme is rejected" 401 '"message":"Missing or invalid authorization header"'
token=not.a.token
request GET /api/user
expect "an invalid token is rejected" 401 '"message":"Invalid or expired token"'
token=$alice_token
request GET /api/user
expect "Alice reads her profile" 200 "\"email\":\"$alice\"" '"name":"Alice"'
request PUT /api/user '{"name": "Alice Again", "bio": "Writes."}'
expect "Alice changes her profile" 200 "\"email\":\"$alice\"" '"name":"Alice Again"' '"bio":"Writes."'
request GET /api/user
expect "the change is stored" 200 '"name":"Alice Again"' '"bio":"Writes."'
request PUT /api/user '{"email": "nonsense", "name": "", "role": "admin"}'
expect "an invalid change is rejected" 400 '"email":["Not a valid email address."]' \
    '"name":["Length must be between 1 and 255."]' '"role":["Unknown field."]' \
    '"current_password":["Missing data for required field."]'
request PUT /api/user '{"password": "password456", "current_password": "a wrong one"}'
expect "a new password requires the current one" 403 '"message":"Current password is incorrect"'
request PUT /api/user "{\"email\": \"$bob\", \"current_password\": \"password123\"}"
expect "Alice cannot use Bob's e-mail" 409 '"message":"Email already registered"'
token=""
request PUT /api/user '{"name": "Nobody"}'
expect "a change requires a token" 401
request DELETE /api/user
expect "a user cannot be deleted" 405
expect_header "a 405 lists the allowed methods" allow '*PUT*'

section "Logout"
request POST /api/logout
expect "logout requires a token" 401 '"message":"Missing or invalid authorization header"'
token=$login_token
request GET /api/user
expect "the second token works" 200
request POST /api/logout
expect "Alice logs out" 200 '"message":"Logged out successfully"'
request GET /api/user
expect "a revoked token is rejected" 401 '"message":"Invalid or expired token"'
token=$alice_token
request GET /api/user
expect "her other token remains valid" 200

section "Writing articles"
article="{\"title\": \"Kestrel $run\", \"description\": \"About kestrels\", \"body\": \"They hover.\"}"
token=""
request POST /api/articles/ "$article"
expect "creating an article requires a token" 401 '"message":"Missing or invalid authorization header"'
token=$alice_token
request POST /api/articles/ "$article"
expect "Alice creates an article" 201 "\"slug\":\"kestrel-$run-" "\"title\":\"Kestrel $run\"" \
    '"description":"About kestrels"' '"body":"They hover."' "\"email\":\"$alice\"" \
    '"favorites_count":0' '"favorited":false' '"created_at":"' '"updated_at":"'
slug=$(member slug)
case $(member created_at) in
????-??-??T??:??:??*Z) verdict "timestamps are RFC 3339 in UTC" "" ;;
*) verdict "timestamps are RFC 3339 in UTC" "created_at is $(member created_at)" ;;
esac
request POST /api/articles/ "$article"
expect "the same title is accepted again" 201
second=$(member slug)
case $second in
"" | "$slug") verdict "the second article has another slug" "the first is \"$slug\", the second \"$second\"" ;;
*) verdict "the second article has another slug" "" ;;
esac
request POST /api/articles/ "{\"title\": \"Fifty%_Percent $run\", \"body\": \"Signs.\"}"
expect "a title with % and _ is accepted" 201 '"description":"'
third=$(member slug)
request POST /api/articles/ '{"title": "", "tags": []}'
expect "an invalid article is rejected" 400 '"title":["Length must be between 1 and 255."]' \
    '"body":["Missing data for required field."]' '"tags":["Unknown field."]'
request POST /api/articles/ '{"title": "a\u0000b", "body": "x"}'
expect "a NUL character is rejected" 400
printf '{"title": "Long", "body": "' >"$folder/long"
dd if=/dev/zero bs=1024 count=2048 2>/dev/null | tr '\000' 'x' >>"$folder/long"
printf '"}' >>"$folder/long"
with=(--header "Expect:")
request POST /api/articles/ "@$folder/long"
expect "a body of 2 MiB is rejected" 413
request POST /api/articles/ "{\"title\": \"Once $run\", \"body\": \"x\"}"
expect "the description is optional" 201 '"description":""'
fourth=$(member slug)

section "Reading articles"
token=""
request GET "/api/articles/$slug"
expect "reading an article requires no token" 200 "\"slug\":\"$slug\"" '"favorited":false'
request HEAD "/api/articles/$slug"
expect "HEAD returns the status of GET" 200
request GET "/api/articles/none-$run"
expect "an unknown article is not found" 404 '"message":"Article not found"'
request POST "/api/articles/$slug" '{}'
expect "an article rejects POST" 405
expect_header "a 405 lists the allowed methods" allow '*DELETE*'

section "Conditions and repeated requests"
request GET "/api/articles/$slug"
tag=$(header etag)
with=(--header "If-None-Match: $tag")
request GET "/api/articles/$slug"
expect "an unchanged article is not sent again" 304
token=$alice_token
with=(--header "If-Match: \"0-0\"")
request PUT "/api/articles/$slug" '{"body": "They hover still."}'
expect "a change to an outdated version is rejected" 412 '"code":"precondition_failed"'
with=(--header "If-Match: \"0-0\"")
request DELETE "/api/articles/$slug"
expect "a deletion of an outdated version is rejected" 412
with=(--header "If-Match: $tag")
request PUT "/api/articles/$slug" '{"body": "They hover."}'
expect "a change to the current version is accepted" 200
keyed="{\"title\": \"Keyed-$run\", \"body\": \"x\"}"
with=(--header "Idempotency-Key: $run")
request POST /api/articles/ "$keyed"
expect "an article with an idempotency key is created" 201
keyed_slug=$(member slug)
with=(--header "Idempotency-Key: $run")
request POST /api/articles/ "$keyed"
expect "the repeated request returns the first article" 201 "\"slug\":\"$keyed_slug\""
expect_header "the repeated response is marked" idempotency-replayed true
with=(--header "Idempotency-Key: $run")
request POST /api/articles/ "{\"title\": \"Other\", \"body\": \"x\"}"
expect "another request with the same key is rejected" 422 '"code":"idempotency_key_reused"'
request DELETE "/api/articles/$keyed_slug"
expect "the article with the key is deleted" 204
token=""

section "Lists"
request GET /api/articles/
expect "the list has the default size" 200 '"articles":[' '"total":' '"page":1' '"per_page":20'
request GET "/api/articles/?search=KESTREL%20$run"
expect "search ignores case" 200 '"total":2'
request GET "/api/articles/?search=%25_percent%20$run"
expect "search finds % and _" 200 '"total":1' "\"slug\":\"$third\""
request GET "/api/articles/?search=_ifty%25_Percent%20$run"
expect "search treats % and _ literally" 200 '"total":0' '"articles":[]'
request GET "/api/articles/?search=$run&per_page=3"
expect "the first page is returned" 200 '"total":4' '"page":1' '"per_page":3'
expect_same "the first page has three articles" 3 "$(count '"slug":')"
case $body in
*"\"$fourth\""*"\"$third\""*"\"$second\""*) verdict "newest first" "" ;;
*) verdict "newest first" "the order is different" ;;
esac
cursor=$(member next_cursor | sed 's/%/%25/g; s/+/%2B/g; s/=/%3D/g; s/&/%26/g')
request GET "/api/articles/?search=$run&per_page=3&page=2"
expect "the second page has the remaining article" 200 '"total":4' '"page":2' "\"slug\":\"$slug\""
expect_same "the second page has one article" 1 "$(count '"slug":')"
request GET "/api/articles/?search=$run&per_page=3&cursor=$cursor"
expect "the cursor returns the same article" 200 "\"slug\":\"$slug\""
expect_same "the cursor's page has one article and no next page" "1 articles, next " "$(count '"slug":') articles, next $(member next_cursor)"
request GET "/api/articles/?search=$run&sort=oldest&per_page=1"
expect "the oldest article comes first" 200 '"total":4' "\"slug\":\"$slug\""
page_tag=$(header etag)
with=(--header "If-None-Match: $page_tag")
request GET "/api/articles/?search=$run&sort=oldest&per_page=1"
expect "an unchanged page is not sent again" 304
request GET "/api/articles/?search=$run&author=2147483647"
expect "the list can be limited to an author" 200 '"total":0'
request GET "/api/articles/?search=$run&favorited=true"
expect "without a token, no article is favorited" 200 '"total":0'
for query in sort=title author=x favorited=1; do
    request GET "/api/articles/?search=$run&$query"
    expect "$query is ignored" 200 '"total":4'
done
for query in page=0 page=abc page=99999999999999999999 per_page=0 per_page=-1 per_page=1000000 cursor=nonsense unknown=1; do
    request GET "/api/articles/?search=$run&$query"
    case $query in
    # A cursor that the server never issued may be rejected, but must not cause an error.
    cursor=*) if [ "$status" = 400 ]; then expect "$query is rejected" 400; else expect "$query is ignored" 200; fi ;;
    *) expect "$query is accepted" 200 '"articles":[' ;;
    esac
done
request GET "/api/articles?page=2&per_page=1"
expect "the list without a slash redirects" 308
expect_header "the redirect adds the slash and keeps the query" location '*/api/articles/[?]page=2&per_page=1'
request HEAD /api/articles/
expect "HEAD returns the status of GET" 200
request OPTIONS /api/articles/
expect "OPTIONS is allowed" 200
expect_header "OPTIONS lists the allowed methods" allow '*GET*'

section "Favorites"
request POST "/api/articles/$slug/favorite"
expect "a favorite requires a token" 401
token=$bob_token
request POST "/api/articles/$slug/favorite"
expect "Bob marks the article as a favorite" 200 '"favorites_count":1' '"favorited":true'
request POST "/api/articles/$slug/favorite"
expect "marking it again changes nothing" 200 '"favorites_count":1' '"favorited":true'
request GET "/api/articles/$slug"
expect "Bob sees his favorite" 200 '"favorites_count":1' '"favorited":true'
token=$alice_token
request GET "/api/articles/$slug"
expect "Alice sees only the count" 200 '"favorites_count":1' '"favorited":false'
token=$bob_token
request DELETE "/api/articles/$slug/favorite"
expect "Bob removes his favorite" 200 '"favorites_count":0' '"favorited":false'
request DELETE "/api/articles/$slug/favorite"
expect "removing it again changes nothing" 200 '"favorites_count":0' '"favorited":false'
request POST "/api/articles/none-$run/favorite"
expect "an unknown article cannot be marked" 404 '"message":"Article not found"'
request DELETE "/api/articles/none-$run/favorite"
expect "an unknown article cannot be unmarked" 404 '"message":"Article not found"'
request GET "/api/articles/$slug/favorite"
expect "favorites reject GET" 405

section "Changing and deleting articles"
token=""
request PUT "/api/articles/$slug" '{"title": "x"}'
expect "a change requires a token" 401
request DELETE "/api/articles/$slug"
expect "a deletion requires a token" 401
token=$bob_token
request PUT "/api/articles/$slug" '{"title": ""}'
expect "only the author can change an article" 403 '"message":"You can only update your own articles"'
request DELETE "/api/articles/$slug"
expect "only the author can delete an article" 403 '"message":"You can only delete your own articles"'
token=$alice_token
request PUT "/api/articles/$slug" '{"title": "Falcon", "body": "They dive."}'
expect "Alice changes her article; the slug stays" 200 "\"slug\":\"$slug\"" '"title":"Falcon"' '"body":"They dive."' '"description":"About kestrels"'
request PUT "/api/articles/$slug" '{"title": "", "body": "", "slug": "mine"}'
expect "an invalid change is rejected" 400 '"title":["Length must be between 1 and 255."]' \
    '"body":["Shorter than minimum length 1."]' '"slug":["Unknown field."]'
request PUT "/api/articles/none-$run" '{"title": "x"}'
expect "an unknown article cannot be changed" 404 '"message":"Article not found"'
for each in "$slug" "$second" "$third" "$fourth"; do
    request DELETE "/api/articles/$each"
    expect "Alice deletes an article" 204
done
request GET "/api/articles/$slug"
expect "a deleted article is not found" 404
request DELETE "/api/articles/$slug"
expect "a deleted article cannot be deleted again" 404 '"message":"Article not found"'
token=""

section "Traces"
# A caller's trace id, sampled (01) and not sampled (00).
for flags in 01 00; do
    caller=$(dd if=/dev/urandom bs=16 count=1 2>/dev/null | od -An -tx1 | tr -d ' \n')
    with=(--header "traceparent: 00-$caller-00f067aa0ba902b7-$flags")
    request GET "/api/articles/none-$run"
    expect "an error has the caller's trace id (flags $flags)" 404 "\"trace_id\":\"$caller\""
    expect_same "the header has the same trace id" "$caller" "$(trace_id)"
done
request GET "/nowhere/$run"
expect "a response for an unknown path has a trace id" 404

section "Documentation"
request GET /api/openapi.json
expect "the OpenAPI document is served" 200 '"openapi":"3.1' '"/api/register"' '"/api/articles/{slug}"' '"/api/articles/{slug}/favorite"'
with=(--header "Accept-Encoding: gzip")
request HEAD /api/openapi.json
expect_header "large responses are compressed on request" content-encoding gzip
request GET /
expect "the root redirects" 307
expect_header "the root redirects to the documentation page" location '*/api/docs'
request GET /api/docs
expect "the documentation page is served" 200 '<html'
expect_header "the documentation page is HTML" content-type 'text/html*'

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
