# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Creates virtual environments with pinned packages. Needs machine.sh.

# `install_requirements <name> <requirements file>`; sets PYTHON, the interpreter of the virtual environment.
install_requirements() {
    local name=$1 requirements=$2 home
    home=$TOOLS/$name-$(checksum "$requirements")
    # A virtual environment cannot be moved, so it is created at its final path.
    install_once "$home" make_environment "$home" "$requirements" ||
        fail "the packages in $requirements could not be fetched, so the tests that need them cannot run"
    PYTHON=$home/bin/python
}

make_environment() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages "python3-venv" "python"
    say "fetching the packages in $2 (from PyPI)"
    python3 -m venv "$1" &&
        PIP_ROOT_USER_ACTION=ignore "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
            --no-deps --requirement "$2"
}
