//! Why a request was not accepted, and what OTLP has a server answer then.

use std::time::Duration;

use axum::http::StatusCode;
use prost::Message as _;
use tonic::Code;

use super::{RETRY_AFTER, status::Status};
use crate::ingest::Refused;

/// A request that was refused whole. The texts go back to the sender.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is nothing at this address: OTLP is /v1/traces, /v1/metrics and /v1/logs")]
    UnknownAddress,
    #[error("only POST is possible here")]
    NotPost,
    #[error("the content type is neither application/x-protobuf nor application/json")]
    UnsupportedType,
    #[error("the content encoding is neither gzip nor identity")]
    UnsupportedEncoding,
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("there is too much in the body for one request")]
    TooMany,
    #[error("the body did not come within {} seconds", .after.as_secs())]
    TooSlow { after: Duration },
    #[error("the body ended early")]
    CutOff,
    #[error("the body is not what its content encoding says")]
    NotGzip,
    #[error("the body cannot be decoded: {0}")]
    Undecodable(String),
    #[error(transparent)]
    NotTaken(#[from] Refused),
    /// A defect of ours.
    #[error("the request could not be handled")]
    Broken,
}

impl Refusal {
    /// OTLP has a sender repeat its request after 429, 502, 503 and 504 only.
    pub(super) fn http_status(&self) -> StatusCode {
        match self {
            Self::UnknownAddress => StatusCode::NOT_FOUND,
            Self::NotPost => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedType | Self::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } | Self::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::CutOff | Self::NotGzip | Self::Undecodable(_) => StatusCode::BAD_REQUEST,
            Self::NotTaken(Refused::Overloaded) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotTaken(Refused::Closed) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When the same request may be accepted.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::NotTaken(_)).then_some(RETRY_AFTER)
    }

    pub(super) fn status(&self) -> Status {
        let status = Status::new(self.code(), self.to_string());
        match self.retry_after() {
            Some(delay) => status.retry_after(delay),
            None => status,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::UnknownAddress => Code::NotFound,
            Self::NotPost => Code::Unimplemented,
            Self::TooSlow { .. } => Code::DeadlineExceeded,
            Self::UnsupportedType
            | Self::UnsupportedEncoding
            | Self::TooLarge { .. }
            | Self::TooMany
            | Self::CutOff
            | Self::NotGzip
            | Self::Undecodable(_) => Code::InvalidArgument,
            Self::NotTaken(Refused::Overloaded) => Code::ResourceExhausted,
            Self::NotTaken(Refused::Closed) => Code::Unavailable,
            Self::Broken => Code::Internal,
        }
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let details = refusal.status().encode_to_vec();
        Self::with_details(refusal.code(), refusal.to_string(), details.into())
    }
}
