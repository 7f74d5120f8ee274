//! The one shape that every error leaves in.
//!
//! A handler returns `Result<_, ApiError>`; middleware and fallbacks make an [`ApiError`] too. The
//! constructors below say which status, code and message belong together; the messages of the
//! reference are kept word for word, because clients match on them.
//!
//! Which to use: a domain error converts by `From`. [`ApiError::bad_request`] when the request
//! cannot be read at all, [`ApiError::validation`] when its fields can be named. The store being
//! away is 503, never 500. [`ApiError::internal`] is for our own defects; what happened is logged,
//! not sent.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use telemetry::Fault;
use utoipa::ToSchema;

use super::json::Json;
use crate::{
    accounts::{AccountError, InvalidToken, TooManyAttempts},
    articles::ArticleError,
    store::{Constraint, StoreError},
};

/// How long a client should wait before it tries an unavailable service again.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(1);

/// Every fault of every field, by field name.
pub type Faults = BTreeMap<String, Vec<String>>;

/// An error on its way to a client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    fields: Option<Faults>,
    /// In whole seconds.
    retry_after: Option<NonZeroU32>,
    /// What went wrong on our side; recorded on the server span, not sent.
    cause: Option<Fault>,
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// Stable, for programs.
    #[schema(example = "article_not_found")]
    code: &'static str,
    /// For people.
    #[schema(example = "Article not found")]
    message: &'static str,
    #[schema(example = 404)]
    status_code: u16,
    /// The id of this request's trace, 32 hexadecimal digits.
    trace_id: Option<String>,
    /// Every fault of every field at once; only on validation errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::HashMap<String, Vec<String>>>)]
    fields: Option<Faults>,
}

impl ApiError {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
            fields: None,
            retry_after: None,
            cause: None,
        }
    }

    fn caused_by(mut self, error_type: &'static str, message: impl Into<String>) -> Self {
        self.cause = Some(Fault {
            error_type: error_type.into(),
            message: message.into(),
        });
        self
    }

    /// Rounded up, so as not to say a moment too early.
    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.retry_after = Some(NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN));
        self
    }

    pub fn bad_request() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", "Bad request")
    }

    pub fn validation(fields: Faults) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "validation_error", "Validation failed");
        error.fields = Some(fields);
        error
    }

    pub fn invalid_idempotency_key() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_idempotency_key",
            "Idempotency-Key must be one text of 1 to 255 printable ASCII characters",
        )
    }

    pub fn missing_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "missing_token",
            "Missing or invalid authorization header",
        )
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found")
    }

    pub fn article_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "article_not_found", "Article not found")
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "Method not allowed",
        )
    }

    pub fn body_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "Request body too large",
        )
    }

    pub fn header_too_large() -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "header_too_large",
            "Request header field too large",
        )
    }

    pub fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Content-Type must be application/json",
        )
    }

    pub fn timeout() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "request_timeout",
            "Request timed out",
        )
        .retry_after(UNAVAILABLE_FOR)
        .caused_by("timeout", "the request took longer than it may")
    }

    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            "Service temporarily unavailable",
        )
        .retry_after(UNAVAILABLE_FOR)
    }

    /// A handler panicked.
    pub fn panicked(message: &'static str) -> Self {
        Self::internal().caused_by("panic", message)
    }

    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "Internal server error",
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                telemetry::warn!(reason, "database unavailable");
                Self::unavailable().caused_by("database_unavailable", reason)
            }
            StoreError::Conflict(Constraint::UserEmail) => AccountError::EmailTaken.into(),
            error @ (StoreError::Conflict(Constraint::ArticleSlug | Constraint::IdempotencyKey)
            | StoreError::Failed(_)) => {
                telemetry::error!(%error, "store failed");
                Self::internal().caused_by("database_error", error.to_string())
            }
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let unauthorized = |code, message| Self::new(StatusCode::UNAUTHORIZED, code, message);
        match error {
            AccountError::EmailTaken => {
                Self::new(StatusCode::CONFLICT, "email_taken", "Email already registered")
            }
            AccountError::InvalidCredentials => unauthorized("invalid_credentials", "Invalid credentials"),
            AccountError::InvalidToken(InvalidToken::Untrusted) => {
                unauthorized("invalid_token", "Invalid or expired token")
            }
            AccountError::InvalidToken(InvalidToken::NoUser) => {
                unauthorized("invalid_token_payload", "Invalid token payload")
            }
            AccountError::UserNotFound => unauthorized("user_not_found", "User not found"),
            AccountError::TooManyAttempts(TooManyAttempts { retry_after }) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_attempts",
                "Too many attempts, try again later",
            )
            .retry_after(retry_after),
            AccountError::Overloaded(error) => {
                telemetry::warn!(%error, "turned away");
                Self::unavailable().caused_by("overloaded", error.to_string())
            }
            AccountError::Store(error) => error.into(),
        }
    }
}

impl From<ArticleError> for ApiError {
    fn from(error: ArticleError) -> Self {
        let forbidden = |message| Self::new(StatusCode::FORBIDDEN, "not_the_author", message);
        match error {
            ArticleError::NotFound => Self::article_not_found(),
            ArticleError::UpdateForbidden => forbidden("You can only update your own articles"),
            ArticleError::DeleteForbidden => forbidden("You can only delete your own articles"),
            ArticleError::PreconditionFailed => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "The article is not in the state that the request demands",
            ),
            ArticleError::IdempotencyKeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "Idempotency-Key was used for another request",
            ),
            ArticleError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: ErrorDetail {
                code: self.code,
                message: self.message,
                status_code: self.status.as_u16(),
                trace_id: telemetry::current_trace_id(),
                fields: self.fields,
            },
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, wait.get().into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
