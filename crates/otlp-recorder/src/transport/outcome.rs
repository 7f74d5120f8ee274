//! The results of sending, and what all transports share.

use std::error::Error;
use std::time::Duration;

/// User agent in the form of the OTLP exporter specification.
pub(super) const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// Maximum length of an answer in bytes. Answers are a few bytes, or a few lines when they report a problem.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// A collector's answer to a request that it accepted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Accepted {
    /// Number of spans, data points or log records that the collector rejected: a partial success.
    pub(crate) rejected: u64,
    /// The collector's message, short, redacted and without the values of our headers.
    pub(crate) message: Option<String>,
}

/// Reason a request was not accepted. Names neither the values of headers nor the endpoint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SendError {
    /// Value of `error.type`: an HTTP status code, a gRPC status, `timeout` or `connection_error`.
    pub(crate) error_type: &'static str,
    /// Time that the collector asked to wait, if the deadline comes earlier.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) message: String,
}

/// Reason a signal cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[from] reqwest::Error),
    #[cfg(feature = "grpc")]
    #[error("the gRPC client cannot be made: {0}")]
    Grpc(#[from] tonic::transport::Error),
    #[error("the endpoint cannot be used")]
    Endpoint,
    #[cfg(not(all(feature = "grpc", feature = "json")))]
    #[error("this program is built without {0}; enable the feature {1} of otlp-recorder")]
    MissingFeature(&'static str, &'static str),
}

/// Returns an error's message with those of its causes.
pub(super) fn described(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
