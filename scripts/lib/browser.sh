# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs Chromium, Node, and the packages of crates/pressroom/tests/browser. Needs machine.sh.

# `install_browser`; sets BROWSER (Chromium) and BROWSER_MODULES (the folder node_modules).
install_browser() {
    local project=crates/pressroom/tests/browser home
    home=$TOOLS/browser-$(checksum "$project/package-lock.json")
    BROWSER=$(find_browser) || {
        install_packages chromium chromium
        BROWSER=$(find_browser) || fail "Chromium was installed, but its program was not found"
    }
    command -v npm >/dev/null 2>&1 || install_packages "nodejs npm" node
    BROWSER_MODULES=$home/node_modules
    install_once "$home" install_modules "$home" "$project" ||
        fail "the packages in $project/package-lock.json could not be fetched, so the tests in a browser cannot run"
}

install_modules() {
    say "fetching the packages in $2/package-lock.json (from npm)"
    mkdir -p "$1" && cp "$2/package.json" "$2/package-lock.json" "$1/" &&
        (cd "$1" && npm ci --silent --ignore-scripts --no-audit --no-fund)
}

find_browser() {
    local name
    for name in chromium chromium-browser google-chrome \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
        command -v "$name" 2>/dev/null && return 0
    done
    return 1
}
