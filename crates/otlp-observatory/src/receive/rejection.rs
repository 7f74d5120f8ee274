//! Errors of the receivers, with the HTTP and gRPC statuses that OTLP specifies.

use std::time::Duration;

use axum::http::StatusCode;
use bounded_server::InvalidRequest;
use prost::Message as _;
use tonic::Code;

use super::{
    limits::{READ_TIMEOUT, RETRY_AFTER},
    status::Status,
};
use crate::ingest::Rejected;

/// Reason a request was rejected. The sender receives the message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejection {
    #[error("unknown path {path}; send OTLP to /v1/traces, /v1/metrics or /v1/logs, or over gRPC")]
    UnknownPath { path: String },
    #[cfg(not(feature = "grpc"))]
    #[error("gRPC is not supported; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")]
    Grpc,
    #[error("cannot be read ({0}); this port serves HTTP and gRPC without TLS")]
    NotHttp(InvalidRequest),
    #[error(
        "host {host} is not allowed; use localhost or a loopback address, or name the host in the settings"
    )]
    Host { host: String },
    #[error("origin {origin} is not allowed; use localhost, or name the origin in the settings")]
    Origin { origin: String },
    #[error("only POST is supported")]
    NotPost,
    #[error("unsupported content type; use application/x-protobuf or application/json")]
    UnsupportedType,
    #[error("unsupported content encoding; use gzip or none")]
    UnsupportedEncoding,
    #[error("the body is larger than {limit} bytes; send smaller batches")]
    TooLarge { limit: usize },
    #[error("the body contains too many items; send smaller batches")]
    TooManyItems,
    #[error("the body did not arrive within {} seconds", READ_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the connection closed before the end of the body")]
    Truncated,
    #[error("the body is not valid gzip")]
    NotGzip,
    #[error("the body cannot be decoded: {0}")]
    Undecodable(String),
    #[error(
        "the file contains no OTLP/JSON telemetry: no resourceSpans, resourceLogs or resourceMetrics with items"
    )]
    NoTelemetry,
    #[error(transparent)]
    Ingest(#[from] Rejected),
    #[error("internal error")]
    Internal,
}

impl Rejection {
    pub(super) fn http_status(&self) -> StatusCode {
        self.statuses().0
    }

    /// Returns the delay after which the sender may retry; `None` if the error is permanent.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Ingest(_)).then_some(RETRY_AFTER)
    }

    pub(super) fn status(&self) -> Status {
        Status::new(self.code(), self.to_string(), self.retry_after())
    }

    fn code(&self) -> Code {
        self.statuses().1
    }

    /// Returns the HTTP and gRPC statuses. OTLP/HTTP senders retry after 429, 502, 503 and 504 only.
    fn statuses(&self) -> (StatusCode, Code) {
        match self {
            Self::UnknownPath { .. } => (StatusCode::NOT_FOUND, Code::NotFound),
            #[cfg(not(feature = "grpc"))]
            Self::Grpc => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented),
            Self::NotHttp(invalid) => (invalid.status(), Code::InvalidArgument),
            Self::Host { .. } | Self::Origin { .. } => (StatusCode::FORBIDDEN, Code::PermissionDenied),
            Self::NotPost => (StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented),
            Self::UnsupportedType | Self::UnsupportedEncoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument)
            }
            Self::TooLarge { .. } | Self::TooManyItems => {
                (StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument)
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded),
            Self::Truncated | Self::NotGzip | Self::Undecodable(_) | Self::NoTelemetry => {
                (StatusCode::BAD_REQUEST, Code::InvalidArgument)
            }
            Self::Ingest(Rejected::Overloaded) => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Self::Ingest(Rejected::Closed) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }
}

impl From<Rejection> for tonic::Status {
    fn from(rejection: Rejection) -> Self {
        let details = rejection.status().encode_to_vec();
        Self::with_details(rejection.code(), rejection.to_string(), details.into())
    }
}
