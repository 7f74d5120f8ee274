# shellcheck shell=bash
# Virtual environments with packages of exact versions. Needs machine.sh.

# `install_requirements <file that pip reads> <folder to make>`: nothing is done where the folder has them already.
# An environment cannot be moved, so it is made in its place; the list of what is in it is put there last.
install_requirements() {
    local requirements=$1 home=$2
    ! cmp -s "$requirements" "$home/installed.txt" || return 0
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages "python3-venv" "python"
    say "fetching what $requirements names (from PyPI)"
    rm -rf "$home"
    python3 -m venv "$home" || fail "no virtual environment can be made in $home"
    PIP_ROOT_USER_ACTION=ignore "$home/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --requirement "$requirements" ||
        fail "what $requirements names could not be fetched, so the tests that need it cannot run"
    cp "$requirements" "$home/installed.txt"
}
