//! Error type of invalid connection settings.

use thiserror::Error;

/// Invalid setting of a [`RedisConfig`](super::RedisConfig).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The URL has none of the accepted forms.
    #[error(
        "the URL is neither redis://[user:password@]host[:port][/database] (or rediss://), unix:///path[?db=number], \
         nor sentinel://[user:password@]host[:port],...[/database]?master=<name> (or sentinels://)"
    )]
    Url,
    /// The URL is that of another kind of broker or result backend.
    #[error(
        "{0} is not supported: messages and results can only be in Redis (redis://, rediss://, unix://, sentinel:// or \
         sentinels://)"
    )]
    Unsupported(&'static str),
    /// The [result backend](super::RedisConfig::result_backend) is invalid.
    #[error("result_backend: {0}")]
    ResultBackend(Box<Self>),
    /// The URL lists sentinels but does not name the server that they monitor.
    #[error("the URL of sentinels must name the server they watch: ?master=<name>")]
    Master,
    /// The URL requests TLS without certificate verification.
    #[error("the server's certificate is always verified: set ssl_cert_reqs to required, or remove it")]
    Unverified,
    /// The lease is shorter than 60 milliseconds, or shorter than three renewal intervals.
    #[error("lease must be at least 60 ms and at least three times renewal_interval")]
    Lease,
    /// The list of priority steps is empty or not ascending.
    #[error("priority_steps must be at least one number, in ascending order")]
    PrioritySteps,
    /// The separator is empty.
    #[error("separator must not be empty")]
    Separator,
    /// A certificate or key file cannot be read, or is not PEM.
    #[error(
        "a certificate or key file for Redis (ssl_ca_certs, ssl_certfile, ssl_keyfile) is missing or not PEM"
    )]
    Certificates,
}
