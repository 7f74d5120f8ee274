# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Celery in the versions that the tests talk to, each in a virtual environment of its own. Needs machine.sh and
# python.sh.

# One file of exact versions for each Celery version: celery-5.6.txt makes the environment celery-5.6.
CELERY_REQUIREMENTS=crates/celeriac/tests/python

# `install_celery <cache folder>`; sets CELERY_PYTHON, the interpreters with colons in between.
install_celery() {
    local cache requirements home
    mkdir -p "$1"
    cache=$(cd "$1" && pwd -P) || exit 1
    CELERY_PYTHON=""
    for requirements in "$CELERY_REQUIREMENTS"/celery-*.txt; do
        home=$cache/$(basename "$requirements" .txt)
        install_requirements "$requirements" "$home"
        CELERY_PYTHON=${CELERY_PYTHON:+$CELERY_PYTHON:}$home/bin/python
    done
}
