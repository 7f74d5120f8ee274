//! Error responses of the pages: a status code and `{"error": …}` with the cause.

use std::borrow::Cow;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// Reason a request gets an error response.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum PageError {
    #[error("parameter `{name}`: {problem}")]
    Parameter {
        name: String,
        problem: Cow<'static, str>,
    },
    #[error("there is no page at this address")]
    NoPage,
    #[error("there is no {0} with this name in memory")]
    NotStored(&'static str),
    #[error("only GET and HEAD are supported, and POST for /clear and /import")]
    Method,
    #[error("requests of other sites are not allowed")]
    Site,
    #[error(
        "this host name is not allowed; use localhost, 127.0.0.1 or [::1], or name the host in the settings"
    )]
    Host,
    #[error("too many concurrent requests; try again")]
    Busy,
    #[error("internal error: the page could not be computed")]
    Failed,
}

impl PageError {
    pub(super) fn parameter(name: &str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Parameter {
            name: name.chars().take(100).collect(),
            problem: problem.into(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::NoPage | Self::NotStored(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Host | Self::Site => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        let allow = (self == Self::Method).then_some([(header::ALLOW, "GET, HEAD")]);
        let body = serde_json::json!({ "error": self.to_string() }).to_string();
        (self.status(), content_type, allow, body).into_response()
    }
}
