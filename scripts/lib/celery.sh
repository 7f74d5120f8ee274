# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Celery in the versions that the tests talk to, each in a virtual environment of its own. Needs machine.sh.

# One file of exact versions for each Celery version: celery-5.6.txt makes the environment celery-5.6.
CELERY_REQUIREMENTS=crates/celeriac/tests/python

# `install_celery <cache folder>`; sets CELERY_PYTHON, the interpreters with colons in between.
# An environment cannot be moved, so it is made in its place; the list of what is in it is put there last.
install_celery() {
    local cache requirements home
    mkdir -p "$1"
    cache=$(cd "$1" && pwd -P) || exit 1
    CELERY_PYTHON=""
    for requirements in "$CELERY_REQUIREMENTS"/celery-*.txt; do
        home=$cache/$(basename "$requirements" .txt)
        if ! cmp -s "$requirements" "$home/installed.txt"; then
            python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages "python3-venv" "python"
            say "fetching what $requirements names (from PyPI)"
            rm -rf "$home"
            python3 -m venv "$home" || fail "no virtual environment can be made in $home"
            PIP_ROOT_USER_ACTION=ignore "$home/bin/python" -m pip install --quiet --disable-pip-version-check \
                --no-deps --requirement "$requirements" ||
                fail "what $requirements names could not be fetched, so the tests with Celery cannot run"
            cp "$requirements" "$home/installed.txt"
        fi
        CELERY_PYTHON=${CELERY_PYTHON:+$CELERY_PYTHON:}$home/bin/python
    done
}
