# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Builds the OpenTelemetry Collector of tests/collector from its released Go modules. The first build takes three to seven
# minutes on two cores, downloads 300 MB of modules and leaves a program of 48 MB in the cache. Needs machine.sh.

# `install_collector`; sets COLLECTOR, the program.
install_collector() {
    local folder
    folder=$TOOLS/collector-$(cat tests/collector/go.sum tests/collector/main.go | cksum | tr ' ' '-')
    install_once "$folder" build_collector "$folder" || fail "the collector could not be built"
    COLLECTOR=$folder/collector
}

build_collector() {
    require_go
    say "building the OpenTelemetry Collector (once, several minutes)"
    mkdir -p "$1"
    (cd tests/collector && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags="-s -w" -o "$1/collector" .)
}
