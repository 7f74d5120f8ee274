//! Error responses of the pages: a status code and `{"error": …}` with the cause.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Error response to a request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("parameter `{name}`: {problem}")]
    Parameter { name: String, problem: &'static str },
    #[error("there is no page at this address")]
    NoPage,
    #[error("there is no {0} with this name in memory")]
    NotStored(&'static str),
    #[error("only GET and HEAD are supported; the pages are read-only")]
    Method,
    #[error(
        "the pages are bound to loopback and do not answer this host name; use localhost, 127.0.0.1 or [::1]"
    )]
    Host,
    #[error("too many requests at once; try again")]
    Busy,
    #[error("internal error: the answer could not be computed")]
    Failed,
}

impl Refusal {
    pub(super) fn parameter(name: &str, problem: &'static str) -> Self {
        Self::Parameter {
            name: name.chars().take(100).collect(),
            problem,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::NoPage | Self::NotStored(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.to_string() }).to_string();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self == Self::Method {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}
