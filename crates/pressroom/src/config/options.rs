//! Every setting as text, from an option or from the environment variable of the same name.

mod observatory;

use clap::Args;

pub use self::observatory::ObservatoryOptions;

/// The settings as they were given. An option wins over its variable; `.env` fills in what neither says.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings (each also an environment variable)")]
pub struct Options {
    /// `development`, or `production`, which embedded mode refuses [default: development]
    #[arg(
        long,
        global = true,
        env = "APP_ENV",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub app_env: Option<String>,

    /// Understood in the place of APP_ENV
    #[arg(
        long,
        global = true,
        env = "FLASK_ENV",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub flask_env: Option<String>,

    /// Address to listen on [default: 127.0.0.1 embedded, 0.0.0.0 in serve]
    #[arg(long, global = true, env = "HOST", hide_env_values = true, value_name = "IP")]
    pub host: Option<String>,

    /// Port to listen on [default: 8000]
    #[arg(
        long,
        global = true,
        env = "PORT",
        hide_env_values = true,
        value_name = "PORT"
    )]
    pub port: Option<String>,

    /// Signs tokens; the same as Flask's, so that each accepts the other's. At least 32 characters;
    /// required by serve, made once and kept in DATA_DIR in embedded mode
    #[arg(
        long,
        global = true,
        env = "SECRET_KEY",
        hide_env_values = true,
        value_name = "TEXT"
    )]
    pub secret_key: Option<String>,

    /// postgresql://user:password@host/database; also postgres:// and SQLAlchemy's
    /// postgresql+psycopg://. Required by serve, worker and migrate [embedded: sqlite://DATA_DIR/pressroom.db]
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,

    /// A replica of that database, for what people without a token read; serve only
    #[arg(
        long,
        global = true,
        env = "DATABASE_READ_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_read_url: Option<String>,

    /// redis://, rediss:// or sentinel:// [default: redis://localhost:6379/0; embedded: none]
    #[arg(
        long,
        global = true,
        env = "REDIS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub redis_url: Option<String>,

    /// Where embedded mode keeps its database and its key, and the observatory what is still to be sent on
    /// [default: ./data]
    #[arg(
        long,
        global = true,
        env = "DATA_DIR",
        hide_env_values = true,
        value_name = "FOLDER"
    )]
    pub data_dir: Option<String>,

    /// Mail server for notifications: smtp://user:password@host:587?tls=required, or smtps://. Without it and
    /// without WEBHOOK_URL notifications are logged
    #[arg(
        long,
        global = true,
        env = "SMTP_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub smtp_url: Option<String>,

    /// Whom notifications are from; required with SMTP_URL
    #[arg(
        long,
        global = true,
        env = "SMTP_FROM",
        hide_env_values = true,
        value_name = "ADDRESS"
    )]
    pub smtp_from: Option<String>,

    /// Receiver of notifications as signed HTTP requests (Standard Webhooks)
    #[arg(
        long,
        global = true,
        env = "WEBHOOK_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub webhook_url: Option<String>,

    /// Signs webhook requests; required with WEBHOOK_URL
    #[arg(
        long,
        global = true,
        env = "WEBHOOK_SECRET",
        hide_env_values = true,
        value_name = "TEXT"
    )]
    pub webhook_secret: Option<String>,

    /// Limits of logins and registrations: `on`, or `off` for all of them [default: on]
    #[arg(
        long,
        global = true,
        env = "RATE_LIMIT",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub rate_limit: Option<String>,

    /// Logins to one account a minute, or `off` [default: 10]
    #[arg(
        long,
        global = true,
        env = "RATE_LIMIT_LOGIN_ACCOUNT",
        hide_env_values = true,
        value_name = "NUMBER"
    )]
    pub rate_limit_login_account: Option<String>,

    /// Logins from one client address a minute, or `off` [default: 60]
    #[arg(
        long,
        global = true,
        env = "RATE_LIMIT_LOGIN_ADDRESS",
        hide_env_values = true,
        value_name = "NUMBER"
    )]
    pub rate_limit_login_address: Option<String>,

    /// Registrations from one client address a minute, or `off` [default: 30]
    #[arg(
        long,
        global = true,
        env = "RATE_LIMIT_REGISTER_ADDRESS",
        hide_env_values = true,
        value_name = "NUMBER"
    )]
    pub rate_limit_register_address: Option<String>,

    /// Addresses and networks (as 10.0.0.0/8) of proxies whose X-Forwarded-For is believed, separated by commas
    /// [default: none]
    #[arg(
        long,
        global = true,
        env = "TRUSTED_PROXIES",
        hide_env_values = true,
        value_name = "NETWORKS"
    )]
    pub trusted_proxies: Option<String>,

    /// Origins (as https://app.example.com) whose pages may read answers in a browser, separated by commas, or *
    /// [default: none]
    #[arg(
        long,
        global = true,
        env = "CORS_ALLOWED_ORIGINS",
        hide_env_values = true,
        value_name = "ORIGINS"
    )]
    pub cors_allowed_origins: Option<String>,

    /// Largest request body, in bytes [default: 1048576]
    #[arg(
        long,
        global = true,
        env = "BODY_LIMIT",
        hide_env_values = true,
        value_name = "BYTES"
    )]
    pub body_limit: Option<String>,

    /// How long a request may take, in seconds [default: 30]
    #[arg(
        long,
        global = true,
        env = "REQUEST_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    pub request_timeout: Option<String>,

    /// How long requests and tasks in progress may take to finish at shutdown, in seconds [default: 25]
    #[arg(
        long,
        global = true,
        env = "SHUTDOWN_GRACE",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    pub shutdown_grace: Option<String>,

    /// For how long serve still accepts requests after it was told to stop and readiness has turned 503, in
    /// seconds: as long as a load balancer takes to notice [default: 0]
    #[arg(
        long,
        global = true,
        env = "SHUTDOWN_DELAY",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    pub shutdown_delay: Option<String>,

    /// How long a token is valid, in hours [default: 24]
    #[arg(
        long,
        global = true,
        env = "JWT_EXPIRATION_HOURS",
        hide_env_values = true,
        value_name = "HOURS"
    )]
    pub jwt_expiration_hours: Option<String>,

    /// How new passwords are hashed: argon2id, or scrypt in werkzeug's format for as long as Flask
    /// verifies them too [default: argon2id]
    #[arg(
        long,
        global = true,
        env = "PASSWORD_SCHEME",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub password_scheme: Option<String>,

    /// Queues that the worker takes tasks from, separated by commas; the first is where serve sends
    /// them [default: celery]
    #[arg(
        long,
        global = true,
        env = "CELERY_QUEUES",
        hide_env_values = true,
        value_name = "NAMES"
    )]
    pub celery_queues: Option<String>,

    /// How many tasks a worker runs at once [default: cores x 10]
    #[arg(
        long,
        global = true,
        env = "CELERY_CONCURRENCY",
        hide_env_values = true,
        value_name = "NUMBER"
    )]
    pub celery_concurrency: Option<String>,

    /// The worker's name, which no other worker may have; %h stands for the host [default: celery@%h]
    #[arg(
        long,
        global = true,
        env = "CELERY_HOSTNAME",
        hide_env_values = true,
        value_name = "NAME@HOST"
    )]
    pub celery_hostname: Option<String>,

    /// After how many seconds a task that nobody acknowledged is given to another worker; the same as
    /// that of Celery workers on the same Redis [default: 3600]
    #[arg(
        long,
        global = true,
        env = "CELERY_VISIBILITY_TIMEOUT",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    pub celery_visibility_timeout: Option<String>,

    #[command(flatten)]
    pub observatory: ObservatoryOptions,
}

impl Options {
    /// With empty values left out: compose files and shells set variables to nothing to unset them.
    #[must_use]
    pub(super) fn without_empty(self) -> Self {
        let set = |value: Option<String>| value.filter(|text| !text.trim().is_empty());
        Self {
            app_env: set(self.app_env),
            flask_env: set(self.flask_env),
            host: set(self.host),
            port: set(self.port),
            secret_key: set(self.secret_key),
            database_url: set(self.database_url),
            database_read_url: set(self.database_read_url),
            redis_url: set(self.redis_url),
            data_dir: set(self.data_dir),
            smtp_url: set(self.smtp_url),
            smtp_from: set(self.smtp_from),
            webhook_url: set(self.webhook_url),
            webhook_secret: set(self.webhook_secret),
            rate_limit: set(self.rate_limit),
            rate_limit_login_account: set(self.rate_limit_login_account),
            rate_limit_login_address: set(self.rate_limit_login_address),
            rate_limit_register_address: set(self.rate_limit_register_address),
            trusted_proxies: set(self.trusted_proxies),
            cors_allowed_origins: set(self.cors_allowed_origins),
            body_limit: set(self.body_limit),
            request_timeout: set(self.request_timeout),
            shutdown_grace: set(self.shutdown_grace),
            shutdown_delay: set(self.shutdown_delay),
            jwt_expiration_hours: set(self.jwt_expiration_hours),
            password_scheme: set(self.password_scheme),
            celery_queues: set(self.celery_queues),
            celery_concurrency: set(self.celery_concurrency),
            celery_hostname: set(self.celery_hostname),
            celery_visibility_timeout: set(self.celery_visibility_timeout),
            observatory: self.observatory.without_empty(),
        }
    }
}
