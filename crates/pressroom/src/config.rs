//! The one place that reads configuration: options, environment variables, defaults.
//!
//! [`Options`] is what was given, as text; [`Config`] is what it means for one command, checked as
//! a whole before anything starts. `OTEL_*`, `RUST_LOG` and `PII_MASKING` are read by the
//! `telemetry` crate, which knows what they mean.

mod display;
mod observatory;
mod options;
mod parse;
mod protection;
mod secret;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use url::Url;

use self::parse::{delay, hours, parse, seconds};
pub use self::{
    options::{ObservatoryOptions, Options},
    secret::Secret,
};
use crate::{
    accounts::{PasswordScheme, Rates},
    api::{AllowedOrigins, TrustedProxies},
    store::postgres::PostgresConfig,
};

/// The shortest key that signs tokens in production, in characters.
const SECRET_KEY_MIN_CHARS: usize = 32;

/// Keys that everybody knows.
const SAMPLE_SECRET_KEYS: [&str; 2] = [
    "replace-me-with-openssl-rand-hex-32",
    "dev-secret-key-change-in-production",
];

/// What the configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything in one process.
    Dev,
    Serve,
    Worker,
    Migrate,
    /// Looking after tasks; needs Redis and nothing else.
    Tasks,
    /// The observatory alone.
    Observatory,
    /// Asking a running process; needs its port and nothing else.
    Probe,
}

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    Postgres(Secret),
    Sqlite(PathBuf),
}

/// By what channels notifications go out; none means the log.
#[derive(Debug, Clone)]
pub struct Notifications {
    pub smtp: Option<Smtp>,
    pub webhook: Option<Webhook>,
}

/// The mail server, and whom mail is from.
#[derive(Debug, Clone)]
pub struct Smtp {
    pub url: Secret,
    pub from: String,
}

/// The webhook's receiver, and the key that signs.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// A valid `http` or `https` URL; its query often holds a key.
    pub url: Secret,
    pub secret: Secret,
}

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Config {
    pub production: bool,
    pub listen: SocketAddr,
    /// Absent in dev mode, which makes one and keeps it, and where nothing is signed.
    pub secret_key: Option<Secret>,
    pub database: Database,
    /// The replica of a PostgreSQL database; in serve mode only.
    pub database_read_url: Option<Secret>,
    /// Absent in dev mode.
    pub redis_url: Option<Secret>,
    pub data_dir: PathBuf,
    pub notifications: Notifications,
    pub rates: Rates,
    pub trusted_proxies: TrustedProxies,
    pub cors_allowed_origins: AllowedOrigins,
    /// In bytes.
    pub body_limit: usize,
    pub request_timeout: Duration,
    pub shutdown_grace: Duration,
    /// How long requests are still accepted after readiness has turned 503; may be zero.
    pub shutdown_delay: Duration,
    pub token_lifetime: Duration,
    pub password_scheme: PasswordScheme,
    pub queues: Vec<String>,
    pub concurrency: NonZeroUsize,
    /// The worker's node name.
    pub hostname: String,
    pub visibility_timeout: Duration,
    /// Absent in modes that have none.
    pub observatory: Option<::observatory::Config>,
}

/// A setting that cannot be used, and which variable it comes from. Fits on one line, and never
/// repeats a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    pub variable: &'static str,
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(variable: &'static str, problem: impl fmt::Display) -> Self {
        Self {
            variable,
            problem: problem.to_string(),
        }
    }
}

impl Config {
    /// What `options` mean for `mode`.
    ///
    /// # Errors
    /// The first setting that is missing or cannot be used.
    pub fn load(mode: Mode, options: Options) -> Result<Self, ConfigError> {
        let options = options.without_empty();
        let production = match options.app_env.as_deref().or(options.flask_env.as_deref()) {
            None | Some("development" | "testing") => false,
            Some("production") if mode == Mode::Dev => {
                return Err(ConfigError::new(
                    "APP_ENV",
                    "production does not run embedded; use `pressroom serve` and `pressroom worker`",
                ));
            }
            Some("production") => true,
            Some(other) => {
                return Err(ConfigError::new(
                    "APP_ENV",
                    format!("{other:?} is neither development nor production"),
                ));
            }
        };
        let host = match mode {
            Mode::Dev => "127.0.0.1",
            _ => "0.0.0.0",
        };
        let host: IpAddr = parse(
            "HOST",
            options.host.as_deref(),
            host,
            "an IP address to listen on",
        )?;
        let port: u16 = parse("PORT", options.port.as_deref(), "8000", "a port number")?;
        let rates = protection::rates(&options)?;
        let trusted_proxies = protection::trusted_proxies(&options)?;
        let cors_allowed_origins = protection::cors_allowed_origins(&options)?;
        let data_dir: PathBuf = options.data_dir.unwrap_or_else(|| "./data".to_owned()).into();
        let observatory = observatory::observatory(mode, options.observatory, &data_dir)?;
        Ok(Self {
            production,
            listen: SocketAddr::new(host, port),
            secret_key: secret_key(mode, options.secret_key)?,
            database: database(mode, options.database_url, &data_dir)?,
            database_read_url: database_read_url(mode, options.database_read_url)?,
            redis_url: redis_url(mode, options.redis_url)?,
            data_dir,
            notifications: Notifications {
                smtp: smtp(options.smtp_url, options.smtp_from)?,
                webhook: webhook(options.webhook_url, options.webhook_secret)?,
            },
            rates,
            trusted_proxies,
            cors_allowed_origins,
            body_limit: parse_body_limit(options.body_limit.as_deref())?,
            request_timeout: seconds("REQUEST_TIMEOUT", options.request_timeout.as_deref(), "30")?,
            shutdown_grace: seconds("SHUTDOWN_GRACE", options.shutdown_grace.as_deref(), "25")?,
            shutdown_delay: delay("SHUTDOWN_DELAY", options.shutdown_delay.as_deref())?,
            token_lifetime: hours(
                "JWT_EXPIRATION_HOURS",
                options.jwt_expiration_hours.as_deref(),
                "24",
            )?,
            password_scheme: password_scheme(options.password_scheme.as_deref())?,
            queues: queues(options.celery_queues.as_deref())?,
            concurrency: concurrency(options.celery_concurrency.as_deref())?,
            hostname: hostname(options.celery_hostname.as_deref())?,
            visibility_timeout: seconds(
                "CELERY_VISIBILITY_TIMEOUT",
                options.celery_visibility_timeout.as_deref(),
                "3600",
            )?,
            observatory,
        })
    }
}

fn secret_key(mode: Mode, given: Option<String>) -> Result<Option<Secret>, ConfigError> {
    let refuse = |problem: &str| {
        let hint = "make one with `openssl rand -hex 32`";
        Err(ConfigError::new("SECRET_KEY", format!("{problem}; {hint}")))
    };
    match given {
        None if mode == Mode::Serve => refuse("is required"),
        None => Ok(None),
        Some(key) if key.chars().count() < SECRET_KEY_MIN_CHARS => {
            refuse(&format!("has fewer than {SECRET_KEY_MIN_CHARS} characters"))
        }
        Some(key) if mode == Mode::Serve && SAMPLE_SECRET_KEYS.contains(&key.as_str()) => {
            refuse("is the sample's, which everybody knows")
        }
        Some(key) => Ok(Some(Secret::new(key))),
    }
}

fn database(mode: Mode, given: Option<String>, data_dir: &std::path::Path) -> Result<Database, ConfigError> {
    let refuse = |problem: &str| Err(ConfigError::new("DATABASE_URL", problem));
    let Some(url) = given else {
        return match mode {
            Mode::Dev | Mode::Tasks | Mode::Observatory | Mode::Probe => {
                Ok(Database::Sqlite(data_dir.join("pressroom.db")))
            }
            Mode::Serve | Mode::Worker | Mode::Migrate => {
                refuse("is required, as postgresql://user:password@host/database")
            }
        };
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
    // SQLAlchemy names the driver in the scheme.
    let dialect = scheme.split('+').next().unwrap_or_default();
    match (dialect, mode) {
        ("postgres" | "postgresql", Mode::Dev) => {
            refuse("is PostgreSQL, which embedded mode does not use; run `pressroom serve`, or unset it")
        }
        ("postgres" | "postgresql", _) => postgres_url("DATABASE_URL", &url).map(Database::Postgres),
        ("sqlite", Mode::Dev | Mode::Migrate | Mode::Tasks | Mode::Observatory | Mode::Probe)
            if !rest.is_empty() =>
        {
            Ok(Database::Sqlite(rest.into()))
        }
        ("sqlite", _) => refuse("is SQLite, which only embedded mode uses; run `pressroom dev`"),
        _ => refuse("is no URL that begins with postgresql:// (or sqlite:// in embedded mode)"),
    }
}

/// The `url` of a PostgreSQL database, without the driver that SQLAlchemy names in the scheme.
fn postgres_url(variable: &'static str, url: &str) -> Result<Secret, ConfigError> {
    match PostgresConfig::parse(url) {
        Ok(_) => {
            let (_, rest) = url.split_once("://").unwrap_or(("", url));
            Ok(Secret::new(format!("postgresql://{rest}")))
        }
        Err(error) => Err(ConfigError::new(variable, format!("is refused: {error}"))),
    }
}

fn database_read_url(mode: Mode, given: Option<String>) -> Result<Option<Secret>, ConfigError> {
    match (mode, given) {
        (Mode::Serve, Some(url)) => postgres_url("DATABASE_READ_URL", &url).map(Some),
        (Mode::Dev, Some(_)) => Err(ConfigError::new(
            "DATABASE_READ_URL",
            "is not used in embedded mode; run `pressroom serve`, or unset it",
        )),
        _ => Ok(None),
    }
}

fn redis_url(mode: Mode, given: Option<String>) -> Result<Option<Secret>, ConfigError> {
    let url = match (mode, given) {
        (Mode::Dev, Some(_)) => {
            return Err(ConfigError::new(
                "REDIS_URL",
                "is not used in embedded mode; run `pressroom serve`, or unset it",
            ));
        }
        (Mode::Dev | Mode::Migrate | Mode::Observatory | Mode::Probe, _) => return Ok(None),
        (Mode::Serve | Mode::Worker | Mode::Tasks, given) => {
            given.unwrap_or_else(|| "redis://localhost:6379/0".to_owned())
        }
    };
    match celeriac::RedisConfig::new(url.as_str()).server() {
        Ok(_) => Ok(Some(Secret::new(url))),
        Err(problem) => Err(ConfigError::new("REDIS_URL", problem)),
    }
}

fn smtp(url: Option<String>, from: Option<String>) -> Result<Option<Smtp>, ConfigError> {
    let Some(url) = url else { return Ok(None) };
    let from = from.ok_or_else(|| ConfigError::new("SMTP_FROM", "is required with SMTP_URL"))?;
    Ok(Some(Smtp {
        url: Secret::new(url),
        from,
    }))
}

fn webhook(url: Option<String>, secret: Option<String>) -> Result<Option<Webhook>, ConfigError> {
    let Some(url) = url else { return Ok(None) };
    if !Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        return Err(ConfigError::new("WEBHOOK_URL", "is no http:// or https:// URL"));
    }
    let secret = secret.ok_or_else(|| ConfigError::new("WEBHOOK_SECRET", "is required with WEBHOOK_URL"))?;
    Ok(Some(Webhook {
        url: Secret::new(url),
        secret: Secret::new(secret),
    }))
}

fn queues(given: Option<&str>) -> Result<Vec<String>, ConfigError> {
    let queues: Vec<String> = given
        .unwrap_or("celery")
        .split(',')
        .map(|queue| queue.trim().to_owned())
        .filter(|queue| !queue.is_empty())
        .collect();
    if queues.is_empty() {
        return Err(ConfigError::new("CELERY_QUEUES", "names no queue"));
    }
    Ok(queues)
}

fn concurrency(given: Option<&str>) -> Result<NonZeroUsize, ConfigError> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let default = (cores * 10).to_string();
    parse("CELERY_CONCURRENCY", given, &default, "a number of tasks, from 1")
}

fn hostname(given: Option<&str>) -> Result<String, ConfigError> {
    let default = celeriac::default_node_name();
    let host = default.split_once('@').map_or("", |(_, host)| host);
    let name = given.map_or_else(|| default.clone(), |given| given.replace("%h", host));
    match name.split_once('@') {
        Some((node, host)) if !node.is_empty() && !host.is_empty() && !name.contains(char::is_whitespace) => {
            Ok(name)
        }
        _ => Err(ConfigError::new(
            "CELERY_HOSTNAME",
            format!("{name:?} is not name@host"),
        )),
    }
}

fn password_scheme(given: Option<&str>) -> Result<PasswordScheme, ConfigError> {
    match given {
        None | Some("argon2id") => Ok(PasswordScheme::Argon2id),
        Some("scrypt") => Ok(PasswordScheme::WerkzeugScrypt),
        Some(other) => Err(ConfigError::new(
            "PASSWORD_SCHEME",
            format!("{other:?} is neither argon2id nor scrypt"),
        )),
    }
}

fn parse_body_limit(given: Option<&str>) -> Result<usize, ConfigError> {
    let limit: NonZeroUsize = parse("BODY_LIMIT", given, "1048576", "a number of bytes, from 1")?;
    Ok(limit.get())
}

#[cfg(test)]
mod tests;
