# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs the packages of the Flask application that tests run alongside Pressroom, in a virtual environment. Needs
# machine.sh and python.sh.

# `install_flask`; sets FLASK_PYTHON, the interpreter with the packages of tests/flask.
install_flask() {
    install_requirements flask tests/flask/requirements.txt
    FLASK_PYTHON=$PYTHON
}
