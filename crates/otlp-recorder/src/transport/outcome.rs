//! The results of sending, and constants shared by all transports.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

/// User agent in the form that the OTLP exporter specification recommends.
pub(super) const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// Maximum length of a response in bytes. A response has a few bytes, or a few lines if it reports a problem.
pub(super) const MAX_RESPONSE: usize = 64 * 1024;

/// `error.type` of a request that reached its deadline.
pub(super) const TIMEOUT: &str = "timeout";

/// Response of the collector to an accepted request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Accepted {
    /// Number of spans, data points or log records that the collector rejected: a partial success.
    pub(crate) rejected: u64,
    /// Message of the collector, without header values.
    pub(crate) message: Option<String>,
}

/// Reason a request was not accepted. Contains neither header values nor the endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SendError {
    /// Value of `error.type`: an HTTP status code, a gRPC status, `timeout` or `connection_error`.
    pub(crate) error_type: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) retry: Retry,
}

/// Condition for a retry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Retry {
    Never,
    AfterBackoff,
    /// Retry no earlier than after the delay that the collector requests.
    After(Duration),
    /// Retry with smaller requests if the request has more than this number of bytes.
    Smaller(usize),
}

impl SendError {
    /// Returns the error for a connection that cannot be established or is lost before the response.
    pub(super) fn connection(message: String) -> Self {
        Self {
            error_type: "connection_error".into(),
            message,
            retry: Retry::AfterBackoff,
        }
    }

    /// Returns the error for a request that reached its deadline.
    pub(crate) fn timeout() -> Self {
        Self {
            error_type: TIMEOUT.into(),
            message: "the collector did not respond in time".to_owned(),
            retry: Retry::Never,
        }
    }
}

/// Reason a signal cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[cfg(feature = "tls")]
    #[error("cannot create the HTTP client: {0}")]
    Tls(#[from] rustls::Error),
    #[cfg(feature = "grpc")]
    #[error("cannot create the gRPC client: {0}")]
    Grpc(#[from] tonic::transport::Error),
    #[error("the endpoint is not a valid URL")]
    Endpoint,
    #[cfg(not(all(feature = "grpc", feature = "json")))]
    #[error("this program is built without {0}; enable the feature {1} of otlp-recorder")]
    MissingFeature(&'static str, &'static str),
}

/// Returns the message of an error, followed by the messages of its sources.
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
