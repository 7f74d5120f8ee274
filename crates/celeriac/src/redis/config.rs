//! Settings of the Redis broker: the address of the server, time-outs and limits. The URL may contain a
//! password and is never printed.

use std::{fmt, path::PathBuf, time::Duration};

use super::{
    error::ConfigError,
    url::{self, Location},
};

/// Bounds of the memory for recent writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub bytes: usize,
    pub time: Duration,
}

/// Longest lifetime of results, about 100 years; Redis rejects times that it cannot represent.
const MAX_RESULT_SECONDS: u64 = 100 * 365 * 86_400;

/// Shortest lease.
const MIN_LEASE: Duration = Duration::from_millis(60);

/// Settings of a [`RedisBroker`](super::RedisBroker).
///
/// ```
/// use std::time::Duration;
/// use celeriac::RedisConfig;
///
/// let config = RedisConfig::new("rediss://user:password@redis.example.com/0")
///     .lease(Duration::from_secs(30))
///     .result_ttl(Duration::from_secs(3600));
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisConfig {
    pub(super) url: String,
    pub(super) ca_certificate: Option<PathBuf>,
    pub(super) visibility_timeout: Duration,
    pub(super) lease: Duration,
    pub(super) renewal_interval: Option<Duration>,
    pub(super) rewrite: Bounds,
    pub(super) delivery_limit: u64,
    pub(super) result_ttl: Duration,
    pub(super) result_backend: Option<String>,
    pub(super) response_timeout: Duration,
    pub(super) dead_letter_capacity: usize,
    pub(super) key_prefix: String,
    pub(super) result_key_prefix: String,
    pub(super) priority_steps: Vec<u8>,
    pub(super) separator: String,
}

impl RedisConfig {
    /// Creates the default settings for the server at `url`.
    ///
    /// | URL | server |
    /// | --- | --- |
    /// | `redis://[user:password@]host[:port][/database]` | one server; `rediss://` for TLS |
    /// | `sentinel://[user:password@]host[:port][,host[:port]...][/database]?master=<name>` | the server that these sentinels monitor under `name`; `sentinels://` for TLS to the sentinels and the server |
    /// | `unix:///path[?db=<number>&user=<name>&pass=<password>]` | a server behind a Unix socket |
    ///
    /// User and password are credentials for the server; the parameters `sentinel_username` and
    /// `sentinel_password` are credentials for the sentinels. Celery's own forms are accepted too: a URL for
    /// each sentinel, separated by semicolons, one of which has the parameter `master` or `master_name`; and
    /// `redis+socket:///path[?virtual_host=<number>]`.
    ///
    /// For TLS, the parameters `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` name files, as in URLs for
    /// Celery. The server's certificate is always verified: the only accepted value of `ssl_cert_reqs` is
    /// `required`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_certificate: None,
            visibility_timeout: Duration::from_secs(3600),
            lease: Duration::from_secs(6),
            renewal_interval: None,
            rewrite: Bounds {
                bytes: 8 << 20,
                time: Duration::from_secs(3600),
            },
            delivery_limit: 20,
            result_ttl: Duration::from_secs(86_400),
            result_backend: None,
            response_timeout: Duration::from_secs(5),
            dead_letter_capacity: 10_000,
            key_prefix: String::new(),
            result_key_prefix: String::new(),
            priority_steps: vec![0, 3, 6, 9],
            separator: "\u{6}\u{16}".to_owned(),
        }
    }

    /// Sets a PEM file of CA certificates to trust instead of the system's.
    ///
    /// The file overrides `ssl_ca_certs` in the URL. The environment variables `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` replace the system's certificates.
    pub fn ca_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certificate = Some(file.into());
        self
    }

    /// Sets the time after which a message that its worker no longer renews returns to its queue; an hour by
    /// default.
    ///
    /// Celery workers on the same Redis must use the same value as their `visibility_timeout`.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = timeout;
        self
    }

    /// Sets the time after which a Celeriac worker that does not renew its lease counts as dead; 6 seconds by
    /// default.
    ///
    /// The worker's messages then return to their queues without waiting for the visibility timeout. Another
    /// worker must have seen the lease unchanged for this time, so by default the messages return within 8
    /// seconds. A worker whose own lease is not confirmed starts no tasks. Leases are renewed by a separate
    /// thread, which tasks cannot block; the lease must be longer than any pause of the whole process.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the interval at which a worker renews its lease and checks the leases of other workers; a sixth
    /// of the lease by default. It must not exceed a third of the lease.
    pub fn renewal_interval(mut self, interval: Duration) -> Self {
        self.renewal_interval = Some(interval);
        self
    }

    /// Returns the interval between two renewals of the lease.
    pub(super) fn renew_every(&self) -> Duration {
        let interval = self.renewal_interval.unwrap_or(self.lease / 6);
        interval.min(self.visibility_timeout / 4)
    }

    /// Sets the memory for what a worker has written recently, in bytes, and the time for which it is kept; 8
    /// MiB and an hour by default. 0 bytes disable it.
    ///
    /// If the server returns with older data, after a restart from a snapshot or a fail-over to a replica
    /// that lagged, the worker rewrites what the server has lost: results, retries, follow-up tasks, parts of
    /// chords and postponed tasks. The oldest entries are dropped first.
    pub fn rewrite(mut self, bytes: usize, time: Duration) -> Self {
        self.rewrite = Bounds { bytes, time };
        self
    }

    /// Sets the number of workers that may die while they hold a message before it is moved to the
    /// dead-letter list instead of returning to its queue; 20 by default. Messages that Python workers
    /// restore do not count.
    pub fn delivery_limit(mut self, limit: u64) -> Self {
        self.delivery_limit = limit;
        self
    }

    /// Sets the server or database of results and chords, with a URL as in [`new`](Self::new); the broker's own
    /// by default. Celery's `result_backend`.
    ///
    /// A task is then settled in two steps: its result is stored first, and its message is acknowledged, and
    /// follow-up tasks are sent, second. If the worker dies in between, the task runs again. Results that this
    /// server loses are not written again.
    pub fn result_backend(mut self, url: impl Into<String>) -> Self {
        self.result_backend = Some(url.into());
        self
    }

    /// Sets the time for which results are kept; a day by default, as in Celery. More than 100 years count as 100
    /// years.
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.result_ttl = ttl;
        self
    }

    /// Sets the time-out for a command; 5 seconds by default.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Sets the maximum length of the dead-letter list, beyond which the oldest letters are dropped; 10,000
    /// by default.
    pub fn dead_letter_capacity(mut self, capacity: usize) -> Self {
        self.dead_letter_capacity = capacity;
        self
    }

    /// Sets the prefix of all keys and channels except those of results; empty by default. Corresponds to
    /// `global_keyprefix` in Celery's `broker_transport_options`.
    ///
    /// This and the following settings must be the same in all applications that share queues.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Sets the prefix of the keys and channels of results; empty by default. Corresponds to `global_keyprefix` in
    /// Celery's `result_backend_transport_options`. As in Celery, `_` is appended unless the prefix ends with `:`,
    /// `_`, `-` or `.`.
    pub fn result_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.result_key_prefix = prefix.into();
        self
    }

    /// Sets the lowest priority of each list of a queue, ascending; 0, 3, 6 and 9 by default. Corresponds to
    /// `priority_steps` in Celery's `broker_transport_options`.
    pub fn priority_steps(mut self, steps: impl Into<Vec<u8>>) -> Self {
        self.priority_steps = steps.into();
        self
    }

    /// Sets the separator between a queue's name and its priority, the characters 6 and 22 by default. Corresponds
    /// to `sep` in Celery's `broker_transport_options`.
    pub fn separator(mut self, separator: impl Into<String>) -> Self {
        self.separator = separator.into();
        self
    }

    /// Returns the prefix of the keys of results.
    pub(super) fn result_prefix(&self) -> String {
        let prefix = self.result_key_prefix.clone();
        match prefix.chars().last() {
            None | Some(':' | '_' | '-' | '.') => prefix,
            Some(_) => prefix + "_",
        }
    }

    /// Checks the settings that do not depend on the URL.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let interval = self.renewal_interval.unwrap_or_default();
        if self.lease < MIN_LEASE || interval.saturating_mul(3) > self.lease {
            return Err(ConfigError::Lease);
        }
        if self.priority_steps.is_empty() || !self.priority_steps.is_sorted_by(|one, next| one < next) {
            return Err(ConfigError::PrioritySteps);
        }
        if self.separator.is_empty() {
            return Err(ConfigError::Separator);
        }
        Ok(())
    }

    /// Returns the lifetime of results in whole seconds.
    pub(super) fn result_seconds(&self) -> u64 {
        self.result_ttl.as_secs().clamp(1, MAX_RESULT_SECONDS)
    }

    /// Returns the server's host and port and the database number, for telemetry.
    ///
    /// The address is `None` for a server behind a Unix socket, and with sentinels, because a fail-over
    /// changes it.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if the URL cannot be used.
    pub fn server(&self) -> Result<(Option<(String, u16)>, i64), ConfigError> {
        let location = Location::parse(&self.url)?;
        let info = location.addresses.first().ok_or(ConfigError::Url)?;
        let address = url::host_and_port(info).filter(|_| location.master.is_none());
        Ok((address, info.redis_settings().db()))
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &"***")
            .field("visibility_timeout", &self.visibility_timeout)
            .field("lease", &self.lease)
            .field("renewal_interval", &self.renew_every())
            .field("result_ttl", &self.result_ttl)
            .finish_non_exhaustive()
    }
}
