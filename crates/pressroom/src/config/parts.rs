//! Settings that several commands share, and the functions that read them.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use celeriac::RedisConfig;
use telemetry::{LogFormat, LogOutput};
use url::Url;

use super::{
    error::{ConfigError, Result},
    given::configuration,
    reader::Reader,
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

/// Keys in published sample files, which production must not use.
pub(super) const SAMPLE_SECRET_KEYS: [&str; 2] = [
    "replace-me-with-openssl-rand-hex-32",
    "dev-secret-key-change-in-production",
];

/// Minimum length of a key that signs tokens, in characters.
const SECRET_KEY_MIN_CHARS: usize = 32;

const SECRET_KEY_HINT: &str = "generate one with `openssl rand -hex 32`";

/// Reads the environment: development, testing or production.
pub(super) fn environment(reader: &mut Reader, app: Setting, flask: Setting) -> Result<&'static str> {
    let is_production = reader.text(flask).is_some_and(|name| name == "production");
    let app = if is_production { app.or("production") } else { app };
    reader.choice(
        app,
        &["development", "testing", "production"].map(|name| (name, name)),
    )
}

/// Reads the key that signs tokens, if given.
pub(super) fn secret_key(reader: &mut Reader, setting: Setting) -> Result<Option<SecretKey>> {
    reader.optional(setting, |key| {
        if key.chars().count() < SECRET_KEY_MIN_CHARS {
            return Err(format!(
                "has fewer than {SECRET_KEY_MIN_CHARS} characters; {SECRET_KEY_HINT}"
            ));
        }
        Ok((SecretKey::new(key), "***".to_owned()))
    })
}

/// Reads the key that signs tokens, which must not be a published sample key.
pub(super) fn required_secret_key(reader: &mut Reader, setting: Setting) -> Result<SecretKey> {
    let error = |problem| ConfigError::new(setting.variable, format!("{problem}; {SECRET_KEY_HINT}"));
    let key = secret_key(reader, setting)?.ok_or_else(|| error("is required"))?;
    match reader.secret(setting) {
        Some(text) if SAMPLE_SECRET_KEYS.contains(&text.expose()) => Err(error("is a published sample")),
        _ => Ok(key),
    }
}

/// Parses the URL of a PostgreSQL database.
pub(super) fn postgres(url: &str) -> Result<(PostgresConfig, String), String> {
    let config = PostgresConfig::parse(url).map_err(|error| error.to_string())?;
    // SQLAlchemy's scheme also names a driver.
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let shown = Secret::new(format!("postgresql://{rest}")).masked_url();
    Ok((config, shown))
}

/// Reads the URL of the PostgreSQL database of `serve` and `worker`.
pub(super) fn database(reader: &mut Reader, setting: Setting) -> Result<PostgresConfig> {
    reader.required(setting, |url| {
        if url.starts_with("sqlite:") {
            return Err("is a SQLite URL, which only embedded mode supports; run `pressroom dev`".to_owned());
        }
        postgres(url)
    })
}

pub(super) fn replica(reader: &mut Reader, setting: Setting) -> Result<Option<PostgresConfig>> {
    reader.optional(setting, postgres)
}

pub(super) fn redis(reader: &mut Reader, url: Setting, visibility_timeout: Setting) -> Result<RedisConfig> {
    let config = reader.required(url, |url| {
        let config = RedisConfig::new(url);
        config.server().map_err(|problem| problem.to_string())?;
        Ok::<_, String>((config, Secret::new(url).masked_url()))
    })?;
    Ok(config.visibility_timeout(reader.seconds(visibility_timeout)?))
}

pub(super) fn data_dir(reader: &mut Reader, setting: Setting) -> Result<PathBuf> {
    Ok(reader.text(setting).unwrap_or_default().into())
}

configuration! {
    /// Destination and format of log lines.
    LogConfig {
        output: LogOutput = log_output[LOG_OUTPUT];
        format: LogFormat = log_format[LOG_FORMAT];
    }
}

fn log_output(reader: &mut Reader, setting: Setting) -> Result<LogOutput> {
    let outputs = [
        ("stdout", LogOutput::Stdout),
        ("stderr", LogOutput::Stderr),
        ("off", LogOutput::Off),
    ];
    reader.choice(setting, &outputs)
}

fn log_format(reader: &mut Reader, setting: Setting) -> Result<LogFormat> {
    let formats = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
    ];
    reader.choice(setting, &formats)
}

configuration! {
    /// Settings of the API.
    ApiConfig {
        rates: Rates = rates[
            RATE_LIMIT, RATE_LIMIT_LOGIN_ACCOUNT, RATE_LIMIT_LOGIN_ADDRESS, RATE_LIMIT_REGISTER_ADDRESS,
            RATE_LIMIT_WRITES_USER
        ];
        trusted_proxies: TrustedProxies = Reader::or_default[TRUSTED_PROXIES];
        cors_allowed_origins: AllowedOrigins = Reader::or_default[CORS_ALLOWED_ORIGINS];
        /// Maximum size of a request body, in bytes.
        body_limit: NonZeroUsize = Reader::count[BODY_LIMIT];
        request_timeout: Duration = Reader::seconds[REQUEST_TIMEOUT];
        /// Key that verifies tokens but signs none.
        secret_key_previous: Option<SecretKey> = secret_key[SECRET_KEY_PREVIOUS];
        header_timeout: Duration = Reader::seconds[HEADER_TIMEOUT];
        keep_alive_timeout: Duration = Reader::seconds[KEEP_ALIVE_TIMEOUT];
        /// Maximum number of connections; `None` for the default.
        max_connections: Option<NonZeroUsize> = Reader::optional_count[MAX_CONNECTIONS];
        max_connections_per_address: Option<NonZeroUsize> =
            Reader::optional_count[MAX_CONNECTIONS_PER_ADDRESS];
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
    writes_user: Setting,
) -> Result<Rates> {
    let limited = is_limited(reader, limited)?;
    let rates = Rates {
        login_account: rate_limit(reader, login_account)?,
        login_address: rate_limit(reader, login_address)?,
        register_address: rate_limit(reader, register_address)?,
        writes_user: rate_limit(reader, writes_user)?,
    };
    Ok(if limited { rates } else { Rates::UNLIMITED })
}

fn is_limited(reader: &mut Reader, setting: Setting) -> Result<bool> {
    reader.choice(setting, &[("on", true), ("off", false)])
}

fn notify_limit(reader: &mut Reader, limited: Setting, author: Setting) -> Result<Option<NonZeroU32>> {
    let limited = is_limited(reader, limited)?;
    let limit = rate_limit(reader, author)?;
    Ok(limit.filter(|_| limited))
}

fn rate_limit(reader: &mut Reader, setting: Setting) -> Result<Option<NonZeroU32>> {
    reader.required(setting, |text| {
        let limit = match text.trim() {
            "off" => None,
            number => Some(
                number
                    .parse()
                    .map_err(|_| format!("{number:?} is neither off nor a positive number"))?,
            ),
        };
        Ok::<_, String>((limit, rate(limit)))
    })
}

fn password_scheme(reader: &mut Reader, setting: Setting) -> Result<PasswordScheme> {
    let schemes = [
        ("argon2id", PasswordScheme::Argon2id),
        ("scrypt", PasswordScheme::WerkzeugScrypt),
    ];
    reader.choice(setting, &schemes)
}

configuration! {
    /// Settings of a worker.
    WorkConfig {
        /// Maximum number of events per author and hour that readers are notified of.
        notify_limit: Option<NonZeroU32> = notify_limit[RATE_LIMIT, RATE_LIMIT_NOTIFY_AUTHOR];
        notify: NotifyConfig = notify[SMTP_URL, SMTP_FROM, WEBHOOK_URL, WEBHOOK_SECRET];
        /// The queues to consume.
        queues: Vec<String> = queues[CELERY_QUEUES];
        concurrency: NonZeroUsize = Reader::count[CELERY_CONCURRENCY];
    }
}

/// Reads the names of the queues, at least one.
pub(super) fn queues(reader: &mut Reader, setting: Setting) -> Result<Vec<String>> {
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

/// Channels for notifications, which are logged if there is no channel.
#[derive(Debug, Clone)]
pub struct NotifyConfig {
    pub smtp: Option<SmtpConfig>,
    pub webhook: Option<Webhook>,
}

/// Receiver of webhook requests, and the key that signs them.
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
) -> Result<NotifyConfig> {
    let server = reader.optional(smtp_url, |url| {
        SmtpConfig::server(url).map(|server| (server, Secret::new(url).masked_url()))
    })?;
    let from = reader.optional(smtp_from, |from| {
        SmtpConfig::sender(from).map(|sender| (sender, from.to_owned()))
    })?;
    let smtp = match (server, from) {
        (Some(server), Some(from)) => Some(SmtpConfig { server, from }),
        (Some(_), None) => return Err(ConfigError::required_with(smtp_from, smtp_url)),
        (None, _) => None,
    };
    let url = reader.optional(webhook_url, |text| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok((url, Secret::new(text).masked_url())),
        _ => Err("is not an http:// or https:// URL"),
    })?;
    let webhook = match (url, reader.secret(webhook_secret)) {
        (Some(url), Some(secret)) => Some(Webhook { url, secret }),
        (Some(_), None) => return Err(ConfigError::required_with(webhook_secret, webhook_url)),
        (None, _) => None,
    };
    Ok(NotifyConfig { smtp, webhook })
}
