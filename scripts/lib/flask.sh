# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# The Flask application that Pressroom is tested beside, in a virtual environment of its own. Needs machine.sh and
# python.sh.

# `install_flask <cache folder>`; sets FLASK_PYTHON, the interpreter that has what tests/flask needs.
install_flask() {
    local cache
    mkdir -p "$1"
    cache=$(cd "$1" && pwd -P) || exit 1
    install_requirements tests/flask/requirements.txt "$cache/flask"
    FLASK_PYTHON=$cache/flask/bin/python
}
