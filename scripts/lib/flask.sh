# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# The Flask application that Pressroom is tested beside, in a virtual environment of its own. Needs machine.sh and
# python.sh.

# `install_flask`; sets FLASK_PYTHON, the interpreter that has what tests/flask needs.
install_flask() {
    install_requirements flask tests/flask/requirements.txt
    FLASK_PYTHON=$PYTHON
}
