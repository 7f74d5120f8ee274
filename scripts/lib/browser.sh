# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Chromium, and what drives it: Node with playwright-core of the version in crates/pressroom/tests/browser. Needs
# machine.sh.

# `install_browser <cache folder>`; sets BROWSER (Chromium) and BROWSER_MODULES (the folder node_modules).
install_browser() {
    local project=crates/pressroom/tests/browser home
    mkdir -p "$1/browser"
    home=$(cd "$1/browser" && pwd -P) || exit 1
    BROWSER=$(find_browser) || {
        install_packages chromium chromium
        BROWSER=$(find_browser) || fail "Chromium was installed, but not where it is looked for"
    }
    command -v npm >/dev/null 2>&1 || install_packages "nodejs npm" node
    BROWSER_MODULES=$home/node_modules
    cmp -s "$project/package-lock.json" "$home/installed.json" && return 0
    say "fetching what $project/package-lock.json names (from npm)"
    cp "$project/package.json" "$project/package-lock.json" "$home/"
    (cd "$home" && npm ci --silent --ignore-scripts --no-audit --no-fund) ||
        fail "playwright-core could not be fetched, so the test in a browser cannot run"
    cp "$project/package-lock.json" "$home/installed.json"
}

find_browser() {
    local name
    for name in chromium chromium-browser google-chrome \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
        command -v "$name" 2>/dev/null && return 0
    done
    return 1
}
