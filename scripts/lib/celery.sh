# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs the tested versions of Celery, each in a separate virtual environment. Needs machine.sh and python.sh.

# One requirements file per version of Celery: celery-5.6.txt is for the environment celery-5.6.
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
