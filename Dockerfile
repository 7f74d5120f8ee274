# syntax=docker/dockerfile:1.7
# Pressroom as an image: `docker build -t pressroom:0.1.0 .`, for both architectures
# `docker buildx build --platform linux/amd64,linux/arm64 .`. See docs/deployment.md.

# The same Debian in both: what the first links against is what the second has. A release names both by digest.
ARG RUST_IMAGE=rust:1.95.0-slim-trixie
ARG RUNTIME_IMAGE=gcr.io/distroless/base-nossl-debian13:nonroot

# --- The compiler, on the builder's own architecture, for that of the image: emulated compilers take hours.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS toolchain
ENV CARGO_TERM_COLOR=never
# Writes the list of crates into the binary, for scanners and SBOM tools.
RUN cargo install cargo-auditable --version 0.7.7 --locked
ARG BUILDARCH
ARG TARGETARCH
# Debian serves only the newest of each package, so no versions here.
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

# --- The workspace without its code: manifests, and an empty program for each target. What the next stage copies from
# here stays the same for as long as these do, so its layer of compiled dependencies is kept, on any builder and in
# any cache that keeps layers (a cache mount stays on one builder).
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
# Cargo compares times: without new ones it would take the empty programs for these. The word is one that only the
# real program knows.
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo auditable build --profile dist --locked -p pressroom \
    && install -D target/*/dist/pressroom /image/usr/local/bin/pressroom \
    && grep -q DATABASE_URL /image/usr/local/bin/pressroom

# --- glibc, the system's certificate authorities and time zones; no shell, no package manager. Not musl: its allocator
# serialises threads, and all of the project's tests and figures are of glibc.
FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
# Where the code is published.
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Pressroom" \
    org.opencontainers.image.description="An articles service: REST API, background tasks, OpenTelemetry" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# Embedded mode, which would write into the image, does not start with it.
ENV APP_ENV=production
WORKDIR /
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["/usr/local/bin/pressroom", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/pressroom"]
CMD ["serve"]
