# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Finds Prometheus, or unpacks Debian's package, which is not installed, because it would start a server. Needs machine.sh.

# Sets PROMETHEUS_TOOLS to the folder with prometheus and promtool.
install_prometheus() {
    if command -v prometheus >/dev/null 2>&1; then
        PROMETHEUS_TOOLS=$(dirname "$(command -v prometheus)")
    else
        install_once "$TOOLS/prometheus" fetch_prometheus || fail "the package prometheus contains no server"
        PROMETHEUS_TOOLS=$TOOLS/prometheus
    fi
}

fetch_prometheus() {
    local work
    work=$(mktemp -d /tmp/pressroom-prometheus.XXXXXX) || return 1
    chmod 777 "$work"
    say "fetching prometheus (apt-get)"
    (cd "$work" && apt-get download -q prometheus >/dev/null 2>&1) || {
        local root=""
        [ "$(id -u)" = 0 ] || root=sudo
        $root apt-get update -q >/dev/null && (cd "$work" && apt-get download -q prometheus >/dev/null)
    } || fail "apt-get could not fetch prometheus"
    mkdir -p "$TOOLS/prometheus" &&
        dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool ./usr/bin/prometheus &&
        mv "$work/usr/bin/promtool" "$work/usr/bin/prometheus" "$TOOLS/prometheus/" && rm -rf "$work"
}
