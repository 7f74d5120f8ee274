# shellcheck shell=bash
# Finds PgBouncer on the machine; the tests start it themselves. Needs machine.sh.

# Prints the path of pgbouncer, or fails. Debian has it where only root looks.
find_pgbouncer() {
    local file
    for file in "$(command -v pgbouncer)" /usr/sbin/pgbouncer /opt/homebrew/bin/pgbouncer /usr/local/bin/pgbouncer; do
        if [ -x "$file" ]; then
            say "$file"
            return 0
        fi
    done
    return 1
}
