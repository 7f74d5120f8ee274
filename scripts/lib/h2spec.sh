# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Builds h2spec, the conformance tests of HTTP/2, from its released Go module. Needs machine.sh.

# `install_h2spec`; sets H2SPEC, the program.
install_h2spec() {
    local folder
    folder=$TOOLS/h2spec-$(checksum tests/h2spec/go.sum)
    install_once "$folder" build_h2spec "$folder" || fail "h2spec could not be built"
    H2SPEC=$folder/h2spec
}

build_h2spec() {
    require_go
    say "building h2spec (once)"
    mkdir -p "$1"
    (cd tests/h2spec && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags="-s -w" -o "$1/h2spec" \
        github.com/summerwind/h2spec/cmd/h2spec)
}
