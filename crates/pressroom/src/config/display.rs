//! The settings in effect, as an environment file would have them.

mod observatory;

use std::{fmt, num::NonZeroU32};

use super::{Config, Database, Secret};
use crate::accounts::{PasswordScheme, Rates};

/// One `NAME=value` a line, secrets masked.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |secret: &Option<Secret>| secret.as_ref().map(Secret::to_string);
        let smtp = self.notifications.smtp.as_ref();
        let webhook = self.notifications.webhook.as_ref();
        line(
            f,
            "APP_ENV",
            Some(
                if self.production {
                    "production"
                } else {
                    "development"
                }
                .to_owned(),
            ),
        )?;
        line(f, "HOST", Some(self.listen.ip().to_string()))?;
        line(f, "PORT", Some(self.listen.port().to_string()))?;
        line(f, "SECRET_KEY", secret(&self.secret_key))?;
        line(f, "DATABASE_URL", Some(self.database.to_string()))?;
        line(
            f,
            "DATABASE_READ_URL",
            self.database_read_url.as_ref().map(Secret::masked_url),
        )?;
        line(
            f,
            "REDIS_URL",
            self.redis_url.as_ref().map(|url| url.masked_url()),
        )?;
        line(f, "DATA_DIR", Some(self.data_dir.display().to_string()))?;
        line(f, "SMTP_URL", smtp.map(|smtp| smtp.url.masked_url()))?;
        line(f, "SMTP_FROM", smtp.map(|smtp| smtp.from.clone()))?;
        line(f, "WEBHOOK_URL", webhook.map(|webhook| webhook.url.masked_url()))?;
        line(
            f,
            "WEBHOOK_SECRET",
            webhook.map(|webhook| webhook.secret.to_string()),
        )?;
        let rate = |rate: Option<NonZeroU32>| Some(rate.map_or("off".to_owned(), |rate| rate.to_string()));
        let limited = self.rates != Rates::UNLIMITED;
        let list = |list: String| Some(list).filter(|list| !list.is_empty());
        line(
            f,
            "RATE_LIMIT",
            Some(if limited { "on" } else { "off" }.to_owned()),
        )?;
        line(f, "RATE_LIMIT_LOGIN_ACCOUNT", rate(self.rates.login_account))?;
        line(f, "RATE_LIMIT_LOGIN_ADDRESS", rate(self.rates.login_address))?;
        line(
            f,
            "RATE_LIMIT_REGISTER_ADDRESS",
            rate(self.rates.register_address),
        )?;
        line(f, "TRUSTED_PROXIES", list(self.trusted_proxies.to_string()))?;
        line(
            f,
            "CORS_ALLOWED_ORIGINS",
            list(self.cors_allowed_origins.to_string()),
        )?;
        line(f, "BODY_LIMIT", Some(self.body_limit.to_string()))?;
        line(
            f,
            "REQUEST_TIMEOUT",
            Some(self.request_timeout.as_secs_f64().to_string()),
        )?;
        line(
            f,
            "SHUTDOWN_GRACE",
            Some(self.shutdown_grace.as_secs_f64().to_string()),
        )?;
        line(
            f,
            "SHUTDOWN_DELAY",
            Some(self.shutdown_delay.as_secs_f64().to_string()),
        )?;
        line(
            f,
            "JWT_EXPIRATION_HOURS",
            Some((self.token_lifetime.as_secs_f64() / 3600.0).to_string()),
        )?;
        let scheme = match self.password_scheme {
            PasswordScheme::Argon2id => "argon2id",
            PasswordScheme::WerkzeugScrypt => "scrypt",
        };
        line(f, "PASSWORD_SCHEME", Some(scheme.to_owned()))?;
        line(f, "CELERY_QUEUES", Some(self.queues.join(",")))?;
        line(f, "CELERY_CONCURRENCY", Some(self.concurrency.to_string()))?;
        line(f, "CELERY_HOSTNAME", Some(self.hostname.clone()))?;
        line(
            f,
            "CELERY_VISIBILITY_TIMEOUT",
            Some(self.visibility_timeout.as_secs_f64().to_string()),
        )?;
        match &self.observatory {
            Some(settings) => observatory::observatory(f, settings),
            None => Ok(()),
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: Option<String>) -> fmt::Result {
    match value {
        Some(value) => writeln!(f, "{name}={value}"),
        None => writeln!(f, "# {name} is not set"),
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => f.write_str(&url.masked_url()),
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
        }
    }
}
