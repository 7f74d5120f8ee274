# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs the OpenTelemetry SDK for Python, which sends telemetry in the observatory's tests, in a virtual environment.
# Needs machine.sh and python.sh.

# `install_otel`; sets OTEL_PYTHON, the interpreter with the packages of crates/otlp-observatory/tests/sdk.
install_otel() {
    install_requirements otel crates/otlp-observatory/tests/sdk/requirements.txt
    OTEL_PYTHON=$PYTHON
}
