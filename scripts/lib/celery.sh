# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Celery in the versions that the tests run against, each in a virtual environment of its own. Needs machine.sh and
# python.sh.

# One file of exact versions for each Celery version: celery-5.6.txt makes the environment celery-5.6.
CELERY_REQUIREMENTS=crates/celeriac/tests/python

# `install_celery`; sets CELERY_PYTHON, the interpreters separated by colons.
install_celery() {
    local requirements
    CELERY_PYTHON=""
    for requirements in "$CELERY_REQUIREMENTS"/celery-*.txt; do
        install_requirements "$(basename "$requirements" .txt)" "$requirements"
        CELERY_PYTHON=${CELERY_PYTHON:+$CELERY_PYTHON:}$PYTHON
    done
}
