# syntax=docker/dockerfile:1.7
# Builds Pressroom's image: `docker build -t pressroom:0.1.0 .`, or for both architectures
# `docker buildx build --platform linux/amd64,linux/arm64 .`. See docs/deployment.md.

# Both images must have the same Debian release, because the program needs the libraries it was linked against. For a
# release, pin both by digest.
ARG RUST_IMAGE=rust:1.95.0-slim-trixie
ARG RUNTIME_IMAGE=gcr.io/distroless/base-nossl-debian13:nonroot

# --- The compiler runs on the builder's architecture and compiles for the image's, because an emulated compiler takes hours.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS toolchain
ENV CARGO_TERM_COLOR=never
# Embeds the list of crates in the binary, for scanners and SBOM tools.
RUN cargo install cargo-auditable --version 0.7.7 --locked
ARG BUILDARCH
ARG TARGETARCH
# Debian's mirrors have only the newest version of each package, so none is pinned.
# hadolint ignore=DL3008
RUN set -eu; \
    case "$TARGETARCH" in \
        amd64) gnu=x86_64-linux-gnu target=x86_64-unknown-linux-gnu gcc=gcc-x86-64-linux-gnu ;; \
        arm64) gnu=aarch64-linux-gnu target=aarch64-unknown-linux-gnu gcc=gcc-aarch64-linux-gnu ;; \
        *) echo "no image for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    if [ "$BUILDARCH" != "$TARGETARCH" ]; then \
        apt-get update -q; \
        apt-get install -y -q --no-install-recommends "$gcc" "libc6-dev-$TARGETARCH-cross"; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    rustup target add "$target"; \
    printf '[build]\ntarget = "%s"\n\n[target.%s]\nlinker = "%s-gcc"\n' "$target" "$target" "$gnu" \
        > "$CARGO_HOME/config.toml"; \
    libgcc=$("$gnu-gcc" -print-file-name=libgcc_s.so.1); \
    install -D -m 644 "$libgcc" "/image/usr/lib/$gnu/libgcc_s.so.1"
WORKDIR /src

# --- The workspace without its code: manifests, and an empty program for each target. While these are unchanged, builders
# reuse the next stage's layer of compiled dependencies, also from a remote layer cache (unlike a cache mount).
FROM toolchain AS manifests
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN find crates -type f ! -name Cargo.toml ! -name '*.rs' -delete \
    && find crates -name '*.rs' -path '*/src/*' ! -path '*/src/lib.rs' ! -path '*/src/main.rs' -delete \
    && find crates -type d -empty -delete \
    && find crates -name '*.rs' -exec sh -c 'for file; do echo "fn main() { }" > "$file"; done' empty {} +

FROM toolchain AS build
COPY --from=manifests /src ./
RUN cargo auditable build --profile dist --locked -p pressroom
COPY crates crates
# Cargo compares modification times: without touch, it would keep the empty programs. The text DATABASE_URL occurs only in the
# real program.
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo auditable build --profile dist --locked -p pressroom \
    && install -D target/*/dist/pressroom /image/usr/local/bin/pressroom \
    && grep -q DATABASE_URL /image/usr/local/bin/pressroom \
    && mkdir /data

# --- The runtime image has glibc, CA certificates and time zones, but no shell and no package manager. musl is not used,
# because its allocator serialises threads, and all tests and benchmarks use glibc.
FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
# URL of the source code.
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Pressroom" \
    org.opencontainers.image.description="An articles service: REST API, background tasks, OpenTelemetry" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# Only embedded mode writes files. A new volume that is mounted here has the owner of this folder.
COPY --from=build --chown=65532:65532 /data /data
# APP_ENV=production prevents embedded mode, which needs `-e APP_ENV=development`. Published ports lead to all addresses
# of the container, not to its loopback address.
ENV APP_ENV=production HOST=:: OBSERVATORY_HOST=0.0.0.0 DATA_DIR=/data
# Returns the memory of large bodies to the system at once. By default, glibc keeps it for later ones.
ENV MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=262144 MALLOC_TRIM_THRESHOLD_=262144
WORKDIR /
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["/usr/local/bin/pressroom", "healthcheck", "--ready"]
ENTRYPOINT ["/usr/local/bin/pressroom"]
CMD ["serve"]
