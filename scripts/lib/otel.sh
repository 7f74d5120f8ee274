# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# The OpenTelemetry SDK for Python that sends to the observatory, in a virtual environment of its own. Needs machine.sh
# and python.sh.

# `install_otel <cache folder>`; sets OTEL_PYTHON, the interpreter that has what crates/otlp-observatory/tests/sdk needs.
install_otel() {
    local cache
    mkdir -p "$1"
    cache=$(cd "$1" && pwd -P) || exit 1
    install_requirements crates/otlp-observatory/tests/sdk/requirements.txt "$cache/otel"
    OTEL_PYTHON=$cache/otel/bin/python
}
