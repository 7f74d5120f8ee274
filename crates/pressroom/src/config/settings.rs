//! The settings, with their defaults and help texts. The crate of the observatory declares its own.

use crate::accounts::Rates;

use super::setting::Fallback::{Computed, Described, Fixed, None};

/// Declares settings, and a list of them.
macro_rules! settings {
    ($(#[$meta:meta])* $list:ident: $($variable:ident, $option:literal, $value:literal, $fallback:expr, $help:literal;)*) => {
        $(pub(super) const $variable: crate::config::setting::Setting = crate::config::setting::Setting {
            variable: stringify!($variable),
            option: $option,
            value_name: $value,
            fallback: $fallback,
            help: $help,
            hidden: false,
        };)*

        $(#[$meta])*
        pub(super) const $list: &[crate::config::setting::Setting] = &[$($variable),*];
    };
}

settings! {
    #[cfg(test)]
    ALL:
    APP_ENV, "app-env", "NAME", Fixed("development"),
        "development, testing or production; embedded mode does not start in production";
    FLASK_ENV, "flask-env", "NAME", None, "Flask's name for APP_ENV; only production has an effect";
    HOST, "host", "HOST", Fixed("::"),
        "IP address or host name to listen on; :: means all addresses, and 0.0.0.0 all IPv4 addresses";
    PORT, "port", "PORT", Fixed("8000"), "Port to listen on";
    SECRET_KEY, "secret-key", "TEXT", None,
        "Key that signs tokens, at least 32 characters. Flask and Pressroom accept each other's tokens when \
        they have the same key. Embedded mode generates one and keeps it in DATA_DIR";
    SECRET_KEY_PREVIOUS, "secret-key-previous", "TEXT", None,
        "Second key that verifies tokens but signs none, while SECRET_KEY is being changed";
    DATABASE_URL, "database-url", "URL", None,
        "Database: postgresql://user:password@host/database; postgres:// and SQLAlchemy's \
        postgresql+psycopg:// work too. Embedded mode uses SQLite [default there: \
        sqlite://DATA_DIR/pressroom.db]";
    DATABASE_READ_URL, "database-read-url", "URL", None,
        "Read replica of the database, for requests without a token";
    REDIS_URL, "redis-url", "URL", Fixed("redis://localhost:6379/0"),
        "Redis server: redis://, rediss://, unix://, sentinel:// or sentinels:// URL";
    DATA_DIR, "data-dir", "FOLDER", Fixed("./data"),
        "Folder for the embedded database, the generated SECRET_KEY, and telemetry waiting to be forwarded";
    SMTP_URL, "smtp-url", "URL", None,
        "Mail server for notifications: smtp://user:password@host:587?tls=required, or smtps://. Without \
        SMTP_URL and WEBHOOK_URL, notifications are logged";
    SMTP_FROM, "smtp-from", "ADDRESS", None, "Sender address for notifications; required with SMTP_URL";
    WEBHOOK_URL, "webhook-url", "URL", None,
        "Receiver of notifications as signed HTTP requests (Standard Webhooks)";
    WEBHOOK_SECRET, "webhook-secret", "TEXT", None,
        "Key that signs webhook requests; required with WEBHOOK_URL";
    RATE_LIMIT, "rate-limit", "on|off", Fixed("on"), "Whether logins, registrations, writes and \
        notifications are limited";
    RATE_LIMIT_LOGIN_ACCOUNT, "rate-limit-login-account", "NUMBER",
        Computed(|| rate(Rates::default().login_account)),
        "Logins to one account per minute, including changes of its e-mail address or password, or off";
    RATE_LIMIT_LOGIN_ADDRESS, "rate-limit-login-address", "NUMBER",
        Computed(|| rate(Rates::default().login_address)),
        "Logins from one client address per minute, or off";
    RATE_LIMIT_REGISTER_ADDRESS, "rate-limit-register-address", "NUMBER",
        Computed(|| rate(Rates::default().register_address)),
        "Registrations from one client address per minute, or off";
    RATE_LIMIT_WRITES_USER, "rate-limit-writes-user", "NUMBER",
        Computed(|| rate(Rates::default().writes_user)),
        "Writes by one user per minute in each process, or off";
    RATE_LIMIT_NOTIFY_AUTHOR, "rate-limit-notify-author", "NUMBER", Fixed("100"),
        "New or edited articles by one author per hour that readers are notified of, or off";
    TRUSTED_PROXIES, "trusted-proxies", "NETWORKS", None,
        "Comma-separated addresses and networks (10.0.0.0/8) of proxies whose X-Forwarded-* and Forwarded are trusted";
    CORS_ALLOWED_ORIGINS, "cors-allowed-origins", "ORIGINS", None,
        "Comma-separated origins (https://app.example.com) whose pages may read responses, or *";
    BODY_LIMIT, "body-limit", "BYTES", Fixed("1048576"), "Maximum size of a request body, in bytes";
    REQUEST_TIMEOUT, "request-timeout", "SECONDS", Fixed("30"), "Maximum duration of a request, in seconds";
    HEADER_TIMEOUT, "header-timeout", "SECONDS", Fixed("30"),
        "Maximum time for a client to send the head of a request, in seconds";
    KEEP_ALIVE_TIMEOUT, "keep-alive-timeout", "SECONDS", Fixed("75"),
        "Time after which an idle connection is closed, in seconds; should exceed the idle time-out of a load \
        balancer in front";
    MAX_CONNECTIONS, "max-connections", "NUMBER", None,
        "Maximum number of client connections [default: the limit on open files minus 64, at most 10000]";
    MAX_CONNECTIONS_PER_ADDRESS, "max-connections-per-address", "NUMBER", None,
        "Maximum number of connections from one client address, except trusted proxies [default: half of \
        MAX_CONNECTIONS]";
    SHUTDOWN_GRACE, "shutdown-grace", "SECONDS", Fixed("25"),
        "Grace period for requests and tasks in progress at shutdown, in seconds";
    SHUTDOWN_DELAY, "shutdown-delay", "SECONDS", Fixed("0"),
        "Time between failing readiness checks and closing the listener at shutdown, in seconds; a load \
        balancer can react in this time";
    JWT_EXPIRATION_HOURS, "jwt-expiration-hours", "HOURS", Fixed("24"), "Lifetime of a token, in hours";
    PASSWORD_SCHEME, "password-scheme", "NAME", Fixed("argon2id"),
        "Hashing scheme for new passwords: argon2id, or scrypt in werkzeug's format while Flask verifies them too";
    CELERY_QUEUES, "celery-queues", "NAMES", Fixed("celery"),
        "Comma-separated queues that the worker consumes; serve sends to the first";
    PUBLISHED_TASK_LIFETIME, "published-task-lifetime", "SECONDS", Fixed("86400"),
        "Time during which a published task without a result is sent again if Redis loses it, in seconds";
    CELERY_CONCURRENCY, "celery-concurrency", "NUMBER", Described("cores x 10", default_concurrency),
        "Maximum number of tasks that a worker runs concurrently";
    CELERY_HOSTNAME, "celery-hostname", "NAME@HOST", Described("celery@%h", celeriac::default_node_name),
        "The worker's unique name; %h stands for the host";
    CELERY_EVENTS, "celery-events", "on|off", Fixed("off"),
        "Whether the worker sends task events from the start, as with Celery's -E: on or off; they include \
        arguments and results";
    CELERY_LEASE, "celery-lease", "SECONDS", Fixed("6"),
        "Time after which other workers run the tasks of a worker that has died, in seconds; must be longer than \
        any pause of the whole process";
    CELERY_VISIBILITY_TIMEOUT, "celery-visibility-timeout", "SECONDS", Fixed("3600"),
        "Time after which an unacknowledged task is redelivered, in seconds; must equal that of Celery \
        workers on the same Redis";
    LOG_OUTPUT, "log-output", "NAME", Fixed("stdout"),
        "Stream for log lines: stdout, stderr or off; log records are also exported over OTLP";
    LOG_FORMAT, "log-format", "NAME", Fixed("auto"),
        "Format of log lines: text, json, or auto for text on a terminal and JSON otherwise";
}

pub(super) fn rate(rate: Option<std::num::NonZeroU32>) -> String {
    rate.map_or("off".to_owned(), |rate| rate.to_string())
}

fn default_concurrency() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    (cores * 10).to_string()
}
