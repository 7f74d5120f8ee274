//! Reasons to refuse a request because of its head.

use http::StatusCode;

/// Reason a request was refused because of its head. The server then closes the connection.
///
/// With [`Server::pass_invalid_requests`](crate::Server::pass_invalid_requests), the service receives a request
/// with this extension and without a body, and returns the response. The request has the client's method (`GET`
/// instead of `CONNECT`), target and fields, except those that concern the connection or the body. If the head
/// cannot be parsed, the request is `GET /`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// The head is not that of an HTTP/1.0 or HTTP/1.1 request.
    #[error("malformed request head")]
    Malformed,
    /// The request line exceeds the limit of the head.
    #[error("request target too long")]
    TargetTooLong,
    /// The head exceeds its limit, or has more than 100 fields.
    #[error("request head too large")]
    HeadTooLarge,
    /// `Host` is not exactly one valid field (RFC 9112, section 3.2).
    #[error("Host is not exactly one valid field")]
    Host,
    /// The length of the body is ambiguous: both `Content-Length` and `Transfer-Encoding`, more than one length,
    /// an invalid one, or `chunked` more than once (RFC 9112, section 6.3).
    #[error("ambiguous length of the body")]
    AmbiguousFraming,
    /// The length of the body does not fit into 63 bits.
    #[error("request body too large")]
    BodyTooLarge,
    /// A transfer coding other than `chunked` (RFC 9112, section 6.1).
    #[error("unknown transfer coding")]
    TransferCoding,
}

impl InvalidRequest {
    /// Returns the status of the response.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Host | Self::AmbiguousFraming => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
        }
    }
}
