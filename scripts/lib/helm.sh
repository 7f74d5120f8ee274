# shellcheck shell=bash
# shellcheck disable=SC2034 # variables set here are read by the script that sources this
# Builds Helm and its plugin for unit tests from their released Go modules, and takes the schemas of other projects' resources
# from their modules. The first run takes about five minutes on two cores. Needs machine.sh.

# `install_helm`; sets HELM and HELM_UNITTEST, the programs, and CRDS, a folder of CustomResourceDefinitions.
install_helm() {
    local folder
    folder=$TOOLS/helm-$(cat tests/helm/go.sum tests/helm/crds | cksum | tr ' ' '-')
    install_once "$folder" build_helm "$folder" || fail "helm could not be built"
    HELM=$folder/helm HELM_UNITTEST=$folder/helm-unittest CRDS=$folder/crds
}

build_helm() {
    local module file version=helm.sh/helm/v3/pkg
    require_go
    say "building helm (once, several minutes)"
    mkdir -p "$1/crds"
    # The release of Kubernetes that charts are rendered for, which releases of Helm set in this way too.
    (cd tests/helm && CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$1/" \
        -ldflags="-s -w -X $version/chartutil.k8sVersionMajor=1 -X $version/chartutil.k8sVersionMinor=37
            -X $version/lint/rules.k8sVersionMajor=1 -X $version/lint/rules.k8sVersionMinor=37" \
        helm.sh/helm/v3/cmd/helm github.com/helm-unittest/helm-unittest/cmd/helm-unittest) || return 1
    while read -r module file; do
        (cd "$1" && go mod download "$module" && cp "$(go env GOMODCACHE)/$module/$file" crds/) || return 1
    done <tests/helm/crds
}
