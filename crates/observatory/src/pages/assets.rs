//! The page's own files, in the binary.

use axum::{
    Router,
    response::{Html, IntoResponse as _, Response},
};

/// The page that shows whatever its address answers.
pub(super) fn shell() -> Response {
    Html("<!doctype html><title>Observatory</title>").into_response()
}

/// The files the page loads.
pub(super) fn routes() -> Router {
    Router::new()
}
