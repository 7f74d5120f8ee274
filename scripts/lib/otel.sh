# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# The OpenTelemetry SDK for Python that sends to the observatory, in a virtual environment of its own. Needs machine.sh
# and python.sh.

# `install_otel`; sets OTEL_PYTHON, the interpreter that has what crates/otlp-observatory/tests/sdk needs.
install_otel() {
    install_requirements otel crates/otlp-observatory/tests/sdk/requirements.txt
    OTEL_PYTHON=$PYTHON
}
