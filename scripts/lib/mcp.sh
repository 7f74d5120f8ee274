# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs the official client and the conformance suite of the Model Context Protocol, in the versions that
# crates/otlp-observatory/tests/mcp pins. Needs machine.sh and browser.sh.

# `install_mcp`; sets MCP_MODULES, a folder node_modules.
install_mcp() {
    local project=crates/otlp-observatory/tests/mcp home
    home=$TOOLS/mcp-$(checksum "$project/package-lock.json")
    MCP_MODULES=$home/node_modules
    command -v npm >/dev/null 2>&1 || install_packages "nodejs npm" node
    install_once "$home" install_modules "$home" "$project" ||
        fail "the packages in $project/package-lock.json could not be fetched, so the tests that need them cannot run"
}
