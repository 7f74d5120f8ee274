# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs the OpenTelemetry SDKs for Python and Node, which send telemetry in the observatory's tests. Needs machine.sh,
# python.sh and browser.sh.

# `install_otel`; sets OTEL_PYTHON, the interpreter with the packages of crates/otlp-observatory/tests/sdk, and OTEL_MODULES,
# the folder node_modules.
install_otel() {
    local project=crates/otlp-observatory/tests/sdk home
    install_requirements otel "$project/requirements.txt"
    OTEL_PYTHON=$PYTHON
    home=$TOOLS/otel-node-$(checksum "$project/node/package-lock.json")
    OTEL_MODULES=$home/node_modules
    command -v npm >/dev/null 2>&1 || install_packages "nodejs npm" node
    install_once "$home" install_modules "$home" "$project/node" ||
        fail "the packages in $project/node/package-lock.json could not be fetched, so the tests that need them cannot run"
}
