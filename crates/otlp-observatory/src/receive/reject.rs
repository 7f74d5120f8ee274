//! Responses to requests that no route answers, in the protocol of the request.

use axum::{extract::Request, response::Response};

#[cfg(feature = "grpc")]
use super::grpc;
use super::{http, rejection::Rejection};
use crate::ingest::Ingest;

/// Counts a rejected request, and returns the response in the protocol of the request.
pub(super) fn reject(ingest: &Ingest, request: &Request, rejection: Rejection) -> Response {
    #[cfg(feature = "grpc")]
    if grpc::is_grpc(request.headers()) {
        return grpc::reject(ingest, rejection);
    }
    #[cfg(not(feature = "grpc"))]
    let rejection = match rejection {
        Rejection::UnknownPath { path } if path.starts_with("/opentelemetry.proto.") => Rejection::Grpc,
        rejection => rejection,
    };
    http::reject(ingest, request.headers(), &rejection)
}
