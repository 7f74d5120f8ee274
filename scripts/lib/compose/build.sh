# shellcheck shell=bash
# Builds the delivered Dockerfile. Base images that cannot be pulled are made from Debian packages, this machine's Rust
# toolchain and its CA certificates. Needs machine.sh, engine.sh and images.sh.

# `base_image <name of the argument>`: prints the default of RUST_IMAGE or RUNTIME_IMAGE.
base_image() { sed -n "s/^ARG $1=//p" Dockerfile; }

# `build_image <folder>`: builds compose.yaml's image of app; needs a running engine with access to the network.
build_image() {
    local folder=$1 rust runtime image build=(docker build)
    # shellcheck disable=SC2016 # the variable is compose.yaml's
    image=$(sed -n 's/^ *image: \(pressroom:\)${PRESSROOM_VERSION:-\(.*\)}$/\1\2/p' compose.yaml)
    rust=$(base_image RUST_IMAGE) runtime=$(base_image RUNTIME_IMAGE)
    if ! docker pull --quiet "$rust" >/dev/null 2>&1 || ! docker pull --quiet "$runtime" >/dev/null 2>&1; then
        make_base_images "$folder/debian" "$rust" "$runtime" || fail "the base images could not be made"
    fi
    # Without Docker Hub, the engine's own frontend has to do; engines before 25 do not know the start interval.
    sed '/^# syntax=/d' Dockerfile >"$folder/Dockerfile"
    ! is_older_engine || sed -i 's/ --start-interval=[^ ]*//' "$folder/Dockerfile"
    if ! docker buildx version >/dev/null 2>&1; then
        if /usr/bin/docker --version 2>/dev/null | grep -q 'version 20\.'; then
            build=(/usr/bin/docker build)
        else
            install_packages docker-buildx ""
        fi
    fi
    say "building the image of the Dockerfile"
    DOCKER_BUILDKIT=1 "${build[@]}" --network host --progress plain --file "$folder/Dockerfile" --tag "$image" . \
        >"$folder/build.log" 2>&1 || {
        tail -n 30 "$folder/build.log" >&2
        fail "the Dockerfile could not be built"
    }
}

# `make_base_images <folder> <image with the compiler> <runtime image>`
make_base_images() {
    local root=$1 suite=${2##*-} toolchain mirror certificates=/etc/ssl/certs/ca-certificates.crt
    command -v debootstrap >/dev/null 2>&1 || install_packages "debootstrap debian-archive-keyring" ""
    # shellcheck disable=SC2016 # apt-get substitutes this
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
    say "making base images of Debian $suite"
    debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates,netbase,tzdata "$suite" "$root" \
        "${mirror:-http://deb.debian.org/debian}" >"$root.log" 2>&1 || {
        tail -n 5 "$root.log" >&2
        return 1
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb
    [ ! -e "$certificates" ] || cp -L "$certificates" "$root$certificates"

    # As in the distroless image: the C library, certificates and time zones, and no program.
    (cd "$root/var/lib/dpkg/info" && cat base-files.list libc6*.list netbase.list tzdata.list) |
        grep -vE '/(s?bin|doc|man)/|^/\.$' | sed 's/^/./' | sort -u >"$root.files"
    printf '.%s\n' "$certificates" >>"$root.files"
    tar -C "$root" --no-recursion -c -T "$root.files" | docker import - "$3" >/dev/null || return 1

    toolchain=$(rustc --print sysroot) && toolchain=$(cd "$toolchain" && pwd -P) || return 1
    mkdir -p "$root/usr/local/cargo/bin" "$root/usr/local/rust"
    tar -C "$toolchain" --exclude=./share --exclude=./lib/rustlib/src -c . | tar -C "$root/usr/local/rust" -x || return 1
    # A stand-in for rustup, which has nothing to download: the toolchain has the target of this machine.
    # shellcheck disable=SC2016 # the arguments are the stand-in's
    printf '#!/bin/sh\n[ "$1 $2" = "target add" ] && [ -d "/usr/local/rust/lib/rustlib/$3" ]\n' \
        >"$root/usr/local/cargo/bin/rustup"
    chmod 755 "$root/usr/local/cargo/bin/rustup"
    import_image "$root" "$2" 'ENV CARGO_HOME=/usr/local/cargo' \
        'ENV PATH=/usr/local/cargo/bin:/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' &&
        rm -rf "$root"
}
