//! Where Redis is and how long things are kept there. The URL may hold a password, so it is never printed.

use std::{fmt, time::Duration};

use redis::{ConnectionAddr, IntoConnectionInfo};
use thiserror::Error;

/// Settings of a [`RedisBroker`](super::RedisBroker).
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS.
    pub url: String,
    /// After this long without a renewal a message goes back to its queue, whoever held it. Must be the same as Celery
    /// workers on the same Redis use (`visibility_timeout`, 3600 s by default).
    pub visibility_timeout: Duration,
    /// A Celeriac worker that has not shown itself for this long is taken for dead, and what it held goes back to its
    /// queue without waiting for the visibility timeout: 20 s by default, which together with the time between two
    /// looks (a quarter of it) makes 25 s at most. Longer than a worker's runtime may ever be blocked.
    pub lease: Duration,
    /// How many workers may die with a message in their hands before it goes to the dead-letter list instead of back to
    /// its queue; 20 by default. What Python workers restore is not counted.
    pub delivery_limit: u64,
    /// How long results are kept; a day by default, as in Celery.
    pub result_ttl: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// How many messages the dead-letter list keeps; the oldest are dropped.
    pub dead_letter_capacity: usize,
}

impl RedisConfig {
    /// The defaults at this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            visibility_timeout: Duration::from_secs(3600),
            lease: Duration::from_secs(20),
            delivery_limit: 20,
            result_ttl: Duration::from_secs(86_400),
            response_timeout: Duration::from_secs(5),
            dead_letter_capacity: 10_000,
        }
    }

    /// The server's host and port (none for a Unix socket) and the database number, for telemetry.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn server(&self) -> Result<(Option<(String, u16)>, i64), ConfigError> {
        let info = self
            .url
            .as_str()
            .into_connection_info()
            .map_err(|_| ConfigError::Url)?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host.clone(), *port))
            }
            _ => None,
        };
        Ok((address, info.redis_settings().db()))
    }

    pub(super) fn client(&self) -> Result<redis::Client, ConfigError> {
        // redis-rs names only what is wrong, but its error is not shown in case it ever quotes the URL.
        let info = self
            .url
            .as_str()
            .into_connection_info()
            .map_err(|_| ConfigError::Url)?;
        // rustls panics at the first TLS connection of a process that has not chosen its cryptography.
        if self.url.starts_with("rediss:") && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Losing a race against another installer is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        redis::Client::open(info).map_err(|_| ConfigError::Url)
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &"***")
            .field("visibility_timeout", &self.visibility_timeout)
            .field("lease", &self.lease)
            .field("result_ttl", &self.result_ttl)
            .finish_non_exhaustive()
    }
}

/// Settings that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The URL is not one of Redis.
    #[error("the Redis URL is not redis://[user:password@]host[:port][/database] (or rediss://)")]
    Url,
}
