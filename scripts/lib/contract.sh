# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Installs the validators, client generators and fuzzer that test the OpenAPI document, in the versions that
# crates/pressroom/tests/contract pins. Needs machine.sh, python.sh and browser.sh.

# `install_contract`; sets CONTRACT_PYTHON (an interpreter) and CONTRACT_MODULES (a node_modules folder).
install_contract() {
    local project=crates/pressroom/tests/contract home
    install_requirements contract "$project/requirements.txt"
    CONTRACT_PYTHON=$PYTHON
    home=$TOOLS/contract-$(checksum "$project/package-lock.json")
    CONTRACT_MODULES=$home/node_modules
    command -v npm >/dev/null 2>&1 || install_packages "nodejs npm" node
    install_once "$home" install_modules "$home" "$project" ||
        fail "the packages in $project/package-lock.json could not be fetched, so the tests that need them cannot run"
}
