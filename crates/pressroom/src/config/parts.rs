//! Parts that the configurations of several commands share.

use std::{
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use celeriac::RedisConfig;
use url::Url;

use super::{
    error::ConfigError,
    reader::{Reader, missing},
    secret::Secret,
    setting::Setting,
    settings::*,
};
use crate::{
    accounts::{PasswordScheme, Rates, SecretKey},
    api::{AllowedOrigins, TrustedProxies},
    store::postgres::PostgresConfig,
    tasks::notifier::SmtpConfig,
};

/// Keys that sample files contain, and that are therefore public.
pub(super) const SAMPLE_SECRET_KEYS: [&str; 2] = [
    "replace-me-with-openssl-rand-hex-32",
    "dev-secret-key-change-in-production",
];

/// Minimum length of a key that signs tokens, in characters.
const SECRET_KEY_MIN_CHARS: usize = 32;

const SECRET_KEY_HINT: &str = "generate one with `openssl rand -hex 32`";

/// Fails for an environment other than development, testing and, unless `embedded`, production.
pub(super) fn environment(reader: &mut Reader, embedded: bool) -> Result<(), ConfigError> {
    let setting = match reader.text(FLASK_ENV) {
        Some(flask) if flask == "production" => APP_ENV.or("production"),
        _ => APP_ENV,
    };
    let names = ["development", "testing", "production"].map(|name| (name, name));
    match reader.choice(setting, &names)? {
        "production" if embedded => Err(ConfigError::new(
            "APP_ENV",
            "embedded mode does not run in production; use `pressroom serve` and `pressroom worker`",
        )),
        _ => Ok(()),
    }
}

/// Reads an address from the settings of its IP address and its port.
pub(super) fn address(reader: &mut Reader, host: Setting, port: Setting) -> Result<SocketAddr, ConfigError> {
    let host: IpAddr = reader.parse(host, "an IP address to listen on")?;
    let port: u16 = reader.parse(port, "a port number")?;
    Ok(SocketAddr::new(host, port))
}

/// Reads the key that signs tokens, if given.
pub(super) fn secret_key(reader: &mut Reader, embedded: bool) -> Result<Option<SecretKey>, ConfigError> {
    reader.optional(SECRET_KEY, |key| {
        if !embedded && SAMPLE_SECRET_KEYS.contains(&key) {
            return Err(format!("is a published sample; {SECRET_KEY_HINT}"));
        }
        if key.chars().count() < SECRET_KEY_MIN_CHARS {
            let problem = format!("has fewer than {SECRET_KEY_MIN_CHARS} characters; {SECRET_KEY_HINT}");
            return Err(problem);
        }
        Ok((SecretKey::new(key), "***".to_owned()))
    })
}

pub(super) fn missing_secret_key() -> ConfigError {
    ConfigError::new("SECRET_KEY", format!("is required; {SECRET_KEY_HINT}"))
}

/// Parses the URL of a PostgreSQL database.
pub(super) fn postgres(url: &str) -> Result<(PostgresConfig, String), String> {
    let config = PostgresConfig::parse(url).map_err(|error| error.to_string())?;
    // Without the driver that SQLAlchemy names in the scheme.
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let shown = Secret::new(format!("postgresql://{rest}")).masked_url();
    Ok((config, shown))
}

/// Reads the URL of the PostgreSQL database of `serve` and `worker`.
pub(super) fn database(reader: &mut Reader) -> Result<PostgresConfig, ConfigError> {
    reader.required(DATABASE_URL, |url| {
        if url.starts_with("sqlite:") {
            return Err("is SQLite, which only embedded mode uses; run `pressroom dev`".to_owned());
        }
        postgres(url)
    })
}

pub(super) fn redis(reader: &mut Reader) -> Result<RedisConfig, ConfigError> {
    let config = reader.required(REDIS_URL, |url| {
        let config = RedisConfig::new(url);
        config.server().map_err(|problem| problem.to_string())?;
        Ok::<_, String>((config, Secret::new(url).masked_url()))
    })?;
    Ok(config.visibility_timeout(reader.seconds(CELERY_VISIBILITY_TIMEOUT)?))
}

pub(super) fn data_dir(reader: &mut Reader) -> PathBuf {
    reader.text(DATA_DIR).unwrap_or_default().into()
}

/// Settings of the API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    pub rates: Rates,
    pub trusted_proxies: TrustedProxies,
    pub cors_allowed_origins: AllowedOrigins,
    /// Maximum size of a request body, in bytes.
    pub body_limit: usize,
    pub request_timeout: Duration,
    pub token_lifetime: Duration,
    pub password_scheme: PasswordScheme,
}

impl ApiConfig {
    pub(super) const SETTINGS: [Setting; 10] = [
        RATE_LIMIT,
        RATE_LIMIT_LOGIN_ACCOUNT,
        RATE_LIMIT_LOGIN_ADDRESS,
        RATE_LIMIT_REGISTER_ADDRESS,
        TRUSTED_PROXIES,
        CORS_ALLOWED_ORIGINS,
        BODY_LIMIT,
        REQUEST_TIMEOUT,
        JWT_EXPIRATION_HOURS,
        PASSWORD_SCHEME,
    ];

    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let limited = reader.choice(RATE_LIMIT, &[("on", true), ("off", false)])?;
        let rates = Rates {
            login_account: rate_limit(reader, RATE_LIMIT_LOGIN_ACCOUNT)?,
            login_address: rate_limit(reader, RATE_LIMIT_LOGIN_ADDRESS)?,
            register_address: rate_limit(reader, RATE_LIMIT_REGISTER_ADDRESS)?,
        };
        let proxies = reader.optional(TRUSTED_PROXIES, |list| {
            TrustedProxies::parse(list).map(|proxies| {
                let shown = proxies.to_string();
                (proxies, shown)
            })
        })?;
        let origins = reader.optional(CORS_ALLOWED_ORIGINS, |list| {
            AllowedOrigins::parse(list).map(|origins| {
                let shown = origins.to_string();
                (origins, shown)
            })
        })?;
        Ok(Self {
            rates: if limited { rates } else { Rates::UNLIMITED },
            trusted_proxies: proxies.unwrap_or_default(),
            cors_allowed_origins: origins.unwrap_or_default(),
            body_limit: reader
                .parse::<NonZeroUsize>(BODY_LIMIT, "a number of bytes, from 1")?
                .get(),
            request_timeout: reader.seconds(REQUEST_TIMEOUT)?,
            token_lifetime: reader.hours(JWT_EXPIRATION_HOURS)?,
            password_scheme: reader.choice(
                PASSWORD_SCHEME,
                &[
                    ("argon2id", PasswordScheme::Argon2id),
                    ("scrypt", PasswordScheme::WerkzeugScrypt),
                ],
            )?,
        })
    }
}

fn rate_limit(reader: &mut Reader, setting: Setting) -> Result<Option<NonZeroU32>, ConfigError> {
    reader.required(setting, |text| {
        let limit = match text.trim() {
            "off" => None,
            number => Some(number.parse().map_err(|_| {
                format!("{number:?} is neither a number of attempts per minute, from 1, nor off")
            })?),
        };
        Ok::<_, String>((limit, rate(limit)))
    })
}

/// Settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkConfig {
    pub notify: NotifyConfig,
    /// The queues to consume.
    pub queues: Vec<String>,
    pub concurrency: NonZeroUsize,
}

impl WorkConfig {
    pub(super) const SETTINGS: [Setting; 6] = [
        SMTP_URL,
        SMTP_FROM,
        WEBHOOK_URL,
        WEBHOOK_SECRET,
        CELERY_QUEUES,
        CELERY_CONCURRENCY,
    ];

    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            notify: NotifyConfig::read(reader)?,
            queues: queues(reader)?,
            concurrency: reader.parse(CELERY_CONCURRENCY, "a number of tasks, from 1")?,
        })
    }
}

/// Reads the queues; there is at least one.
pub(super) fn queues(reader: &mut Reader) -> Result<Vec<String>, ConfigError> {
    reader.required(CELERY_QUEUES, |names| {
        let queues: Vec<String> = names
            .split(',')
            .map(|queue| queue.trim().to_owned())
            .filter(|queue| !queue.is_empty())
            .collect();
        if queues.is_empty() {
            return Err("names no queue");
        }
        let shown = queues.join(",");
        Ok((queues, shown))
    })
}

/// The channels that notifications are sent through. Without any, notifications are logged.
#[derive(Debug, Clone)]
pub struct NotifyConfig {
    pub smtp: Option<SmtpConfig>,
    pub webhook: Option<Webhook>,
}

/// The receiver of a webhook, and the key that signs its requests.
#[derive(Clone)]
pub struct Webhook {
    pub url: Url,
    pub secret: Secret,
}

/// Hides the URL, whose query often contains a key.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

impl NotifyConfig {
    fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let server = reader.optional(SMTP_URL, |url| {
            SmtpConfig::server(url).map(|server| (server, Secret::new(url).masked_url()))
        })?;
        let from = reader.optional(SMTP_FROM, |from| {
            SmtpConfig::sender(from).map(|sender| (sender, from.to_owned()))
        })?;
        let smtp = match (server, from) {
            (Some(server), Some(from)) => Some(SmtpConfig { server, from }),
            (Some(_), None) => return Err(missing(SMTP_FROM)),
            (None, _) => None,
        };
        let url = reader.optional(WEBHOOK_URL, |text| {
            let url = Url::parse(text).ok();
            let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
            let shown = Secret::new(text).masked_url();
            url.map(|url| (url, shown))
                .ok_or("is not an http:// or https:// URL")
        })?;
        let webhook = match (url, reader.secret(WEBHOOK_SECRET)) {
            (Some(url), Some(secret)) => Some(Webhook { url, secret }),
            (Some(_), None) => return Err(missing(WEBHOOK_SECRET)),
            (None, _) => None,
        };
        Ok(Self { smtp, webhook })
    }
}
