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
    given::configuration,
    reader::{Reader, missing, shown},
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

/// Fails for an environment other than development, testing and production.
pub(super) fn environment(reader: &mut Reader, app: Setting, flask: Setting) -> Result<(), ConfigError> {
    read_environment(reader, app, flask).map(|_| ())
}

/// Fails for an environment other than development and testing.
pub(super) fn embedded_environment(
    reader: &mut Reader,
    app: Setting,
    flask: Setting,
) -> Result<(), ConfigError> {
    match read_environment(reader, app, flask)? {
        "production" => Err(ConfigError::new(
            app.variable,
            "embedded mode does not run in production; use `pressroom serve` and `pressroom worker`",
        )),
        _ => Ok(()),
    }
}

fn read_environment(reader: &mut Reader, app: Setting, flask: Setting) -> Result<&'static str, ConfigError> {
    let app = match reader.text(flask) {
        Some(flask) if flask == "production" => app.or("production"),
        _ => app,
    };
    let names = ["development", "testing", "production"];
    reader.choice(app, &names.map(|name| (name, name)))
}

/// Reads an address from the settings of its IP address and its port.
pub(super) fn address(reader: &mut Reader, host: Setting, port: Setting) -> Result<SocketAddr, ConfigError> {
    let host: IpAddr = reader.parse(host, "an IP address to listen on")?;
    let port: u16 = reader.parse(port, "a port number")?;
    Ok(SocketAddr::new(host, port))
}

/// Reads the key that signs tokens, if given; any key but those in `refused`.
pub(super) fn secret_key(
    reader: &mut Reader,
    setting: Setting,
    refused: &[&str],
) -> Result<Option<SecretKey>, ConfigError> {
    reader.optional(setting, |key| {
        if refused.contains(&key) {
            return Err(format!("is a published sample; {SECRET_KEY_HINT}"));
        }
        if key.chars().count() < SECRET_KEY_MIN_CHARS {
            let problem = format!("has fewer than {SECRET_KEY_MIN_CHARS} characters; {SECRET_KEY_HINT}");
            return Err(problem);
        }
        Ok((SecretKey::new(key), "***".to_owned()))
    })
}

/// Reads the key that signs tokens, which must not be a published one.
pub(super) fn required_secret_key(reader: &mut Reader, setting: Setting) -> Result<SecretKey, ConfigError> {
    let key = secret_key(reader, setting, &SAMPLE_SECRET_KEYS)?;
    key.ok_or_else(|| ConfigError::new(setting.variable, format!("is required; {SECRET_KEY_HINT}")))
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
pub(super) fn database(reader: &mut Reader, setting: Setting) -> Result<PostgresConfig, ConfigError> {
    reader.required(setting, |url| {
        if url.starts_with("sqlite:") {
            return Err("is SQLite, which only embedded mode uses; run `pressroom dev`".to_owned());
        }
        postgres(url)
    })
}

pub(super) fn replica(reader: &mut Reader, setting: Setting) -> Result<Option<PostgresConfig>, ConfigError> {
    reader.optional(setting, postgres)
}

pub(super) fn redis(
    reader: &mut Reader,
    url: Setting,
    visibility_timeout: Setting,
) -> Result<RedisConfig, ConfigError> {
    let config = reader.required(url, |url| {
        let config = RedisConfig::new(url);
        config.server().map_err(|problem| problem.to_string())?;
        Ok::<_, String>((config, Secret::new(url).masked_url()))
    })?;
    Ok(config.visibility_timeout(reader.seconds(visibility_timeout)?))
}

pub(super) fn data_dir(reader: &mut Reader) -> PathBuf {
    reader.text(DATA_DIR).unwrap_or_default().into()
}

configuration! {
    /// Settings of the API.
    ApiConfig {
        rates: Rates = rates[
            RATE_LIMIT, RATE_LIMIT_LOGIN_ACCOUNT, RATE_LIMIT_LOGIN_ADDRESS, RATE_LIMIT_REGISTER_ADDRESS
        ];
        trusted_proxies: TrustedProxies = trusted_proxies[TRUSTED_PROXIES];
        cors_allowed_origins: AllowedOrigins = cors_allowed_origins[CORS_ALLOWED_ORIGINS];
        /// Maximum size of a request body, in bytes.
        body_limit: usize = body_limit[BODY_LIMIT];
        request_timeout: Duration = Reader::seconds[REQUEST_TIMEOUT];
        token_lifetime: Duration = Reader::hours[JWT_EXPIRATION_HOURS];
        password_scheme: PasswordScheme = password_scheme[PASSWORD_SCHEME];
    }
}

fn rates(
    reader: &mut Reader,
    limited: Setting,
    login_account: Setting,
    login_address: Setting,
    register_address: Setting,
) -> Result<Rates, ConfigError> {
    let limited = reader.choice(limited, &[("on", true), ("off", false)])?;
    let rates = Rates {
        login_account: rate_limit(reader, login_account)?,
        login_address: rate_limit(reader, login_address)?,
        register_address: rate_limit(reader, register_address)?,
    };
    Ok(if limited { rates } else { Rates::UNLIMITED })
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

fn trusted_proxies(reader: &mut Reader, setting: Setting) -> Result<TrustedProxies, ConfigError> {
    let proxies = reader.optional(setting, |list| TrustedProxies::parse(list).map(shown))?;
    Ok(proxies.unwrap_or_default())
}

fn cors_allowed_origins(reader: &mut Reader, setting: Setting) -> Result<AllowedOrigins, ConfigError> {
    let origins = reader.optional(setting, |list| AllowedOrigins::parse(list).map(shown))?;
    Ok(origins.unwrap_or_default())
}

fn body_limit(reader: &mut Reader, setting: Setting) -> Result<usize, ConfigError> {
    let limit: NonZeroUsize = reader.parse(setting, "a number of bytes, from 1")?;
    Ok(limit.get())
}

fn password_scheme(reader: &mut Reader, setting: Setting) -> Result<PasswordScheme, ConfigError> {
    let schemes = [
        ("argon2id", PasswordScheme::Argon2id),
        ("scrypt", PasswordScheme::WerkzeugScrypt),
    ];
    reader.choice(setting, &schemes)
}

configuration! {
    /// Settings of a worker.
    WorkConfig {
        notify: NotifyConfig = notify[SMTP_URL, SMTP_FROM, WEBHOOK_URL, WEBHOOK_SECRET];
        /// The queues to consume.
        queues: Vec<String> = queues[CELERY_QUEUES];
        concurrency: NonZeroUsize = concurrency[CELERY_CONCURRENCY];
    }
}

fn concurrency(reader: &mut Reader, setting: Setting) -> Result<NonZeroUsize, ConfigError> {
    reader.parse(setting, "a number of tasks, from 1")
}

/// Reads the queues; there is at least one.
pub(super) fn queues(reader: &mut Reader, setting: Setting) -> Result<Vec<String>, ConfigError> {
    reader.required(setting, |names| {
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

fn notify(
    reader: &mut Reader,
    smtp_url: Setting,
    smtp_from: Setting,
    webhook_url: Setting,
    webhook_secret: Setting,
) -> Result<NotifyConfig, ConfigError> {
    let server = reader.optional(smtp_url, |url| {
        SmtpConfig::server(url).map(|server| (server, Secret::new(url).masked_url()))
    })?;
    let from = reader.optional(smtp_from, |from| {
        SmtpConfig::sender(from).map(|sender| (sender, from.to_owned()))
    })?;
    let smtp = match (server, from) {
        (Some(server), Some(from)) => Some(SmtpConfig { server, from }),
        (Some(_), None) => return Err(missing(smtp_from)),
        (None, _) => None,
    };
    let url = reader.optional(webhook_url, |text| {
        let url = Url::parse(text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let shown = Secret::new(text).masked_url();
        url.map(|url| (url, shown))
            .ok_or("is not an http:// or https:// URL")
    })?;
    let webhook = match (url, reader.secret(webhook_secret)) {
        (Some(url), Some(secret)) => Some(Webhook { url, secret }),
        (Some(_), None) => return Err(missing(webhook_secret)),
        (None, _) => None,
    };
    Ok(NotifyConfig { smtp, webhook })
}
