//! Where Redis is and how long things are kept there. The URL may hold a password, so it is never printed.

use std::{fmt, path::PathBuf, time::Duration};

use redis::ConnectionAddr;
use thiserror::Error;

use super::url::Location;

/// Settings of a [`RedisBroker`](super::RedisBroker).
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS; or the sentinels that know the server,
    /// `sentinel://[user:password@]host[:port][,host[:port]...][/database]?master=<name>`, or `sentinels://` for TLS to
    /// them and to the server. User and password are those of the server; a sentinel's own, where it wants some, are the
    /// parameters `sentinel_username` and `sentinel_password`. Celery's form of the same is understood too, a URL for
    /// each sentinel with semicolons in between; the name, which Celery takes from its transport options, is then
    /// `master` or `master_name` of any of them.
    ///
    /// A Unix socket is `unix:///path[?db=<number>&user=<name>&pass=<password>]`, or Celery's
    /// `redis+socket:///path[?virtual_host=<number>]`.
    ///
    /// For TLS, the parameters `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` name files as they do for Python's
    /// Celery. The server's certificate is always verified, so `ssl_cert_reqs` may only be `required`.
    pub url: String,
    /// A file of certificates of authorities, in PEM format, that are trusted instead of the system's; takes the place
    /// of `ssl_ca_certs` in the URL. Without both the system's are trusted, or those of the environment variables
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub ca_certificate: Option<PathBuf>,
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
            ca_certificate: None,
            visibility_timeout: Duration::from_secs(3600),
            lease: Duration::from_secs(20),
            delivery_limit: 20,
            result_ttl: Duration::from_secs(86_400),
            response_timeout: Duration::from_secs(5),
            dead_letter_capacity: 10_000,
        }
    }

    /// The server's host and port and the database number, for telemetry. A server behind a Unix socket has no port, and
    /// one behind sentinels may be another one at any time.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn server(&self) -> Result<(Option<(String, u16)>, i64), ConfigError> {
        let location = Location::parse(&self.url)?;
        let info = location.addresses.first().ok_or(ConfigError::Url)?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
                if location.master.is_none() =>
            {
                Some((host.clone(), *port))
            }
            _ => None,
        };
        Ok((address, info.redis_settings().db()))
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
    #[error(
        "the Redis URL is not redis://[user:password@]host[:port][/database] (or rediss://), \
         nor sentinel://[user:password@]host[:port],...[/database]?master=<name> (or sentinels://)"
    )]
    Url,
    /// The URL is one of sentinels and does not say what the server is called.
    #[error("the URL of sentinels must name the server they watch: ?master=<name>")]
    Master,
    /// The URL asks for TLS without verified certificates.
    #[error("the server's certificate is always verified: ssl_cert_reqs may only be required")]
    Unverified,
    /// A file of certificates or keys cannot be read, or does not hold any.
    #[error("a file of certificates for Redis (ssl_ca_certs, ssl_certfile, ssl_keyfile) cannot be used")]
    Certificates,
}
