//! The response of a serialised value.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

/// Returns a response with this JSON text.
pub(super) fn json(body: Vec<u8>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
