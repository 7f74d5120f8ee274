//! Responses with a serialised body.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

/// Returns a response whose body is a JSON text.
pub(super) fn json(body: Vec<u8>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
