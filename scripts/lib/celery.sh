# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs the tested versions of Celery, each in a separate virtual environment, and Celery's own integration suite.
# Needs machine.sh and python.sh.

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

# The source distribution of Celery, with its hash.
CELERY_SUITE_SOURCE=crates/celeriac/tests/celery_suite/source.txt

# `install_celery_suite`; sets CELERY_SUITE, the folder of the source distribution.
install_celery_suite() {
    CELERY_SUITE=$TOOLS/celery-suite-$(checksum "$CELERY_SUITE_SOURCE")
    install_once "$CELERY_SUITE" fetch_celery_suite "$CELERY_SUITE" ||
        fail "the source of Celery in $CELERY_SUITE_SOURCE could not be fetched, so Celery's suite cannot run"
}

# The folder contains only the suite, without the package `celery`, so the tests import the installed one.
fetch_celery_suite() {
    mkdir -p "$1/source" &&
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary celery \
            --require-hashes --requirement "$CELERY_SUITE_SOURCE" --dest "$1/source" &&
        tar -xzf "$1"/source/celery-*.tar.gz -C "$1/source" &&
        mv "$1"/source/celery-*/t "$1"/source/celery-*/pyproject.toml "$1" &&
        rm -r "$1/source"
}
