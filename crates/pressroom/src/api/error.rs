//! The error envelope: the one JSON format of every error response.
//!
//! Handlers return `Result<_, ApiError>`; middleware and fallbacks build an [`ApiError`] as well. Each
//! constructor ties a status, a code and a message together. The messages are those of the reference
//! implementation, word for word, because clients match on them.
//!
//! Choosing an error: domain errors convert with `From`. Use [`ApiError::bad_request`] when the request
//! cannot be read at all and [`ApiError::validation`] when individual fields are wrong. An unavailable
//! database is 503, never 500. [`ApiError::internal`] is for defects of this program; the cause is logged
//! but not sent.

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

/// Value of `Retry-After` when the service is unavailable.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(1);

/// All validation errors of a request, by field name.
pub type FieldErrors = BTreeMap<String, Vec<String>>;

/// An error response.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    fields: Option<FieldErrors>,
    /// Value of `Retry-After`, in seconds.
    retry_after: Option<NonZeroU32>,
    /// Internal cause; recorded on the server span, not sent.
    cause: Option<Fault>,
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// Stable identifier for programs.
    #[schema(example = "article_not_found")]
    code: &'static str,
    /// Text for people.
    #[schema(example = "Article not found")]
    message: &'static str,
    #[schema(example = 404)]
    status_code: u16,
    /// Trace id of this request, 32 hexadecimal digits.
    trace_id: Option<String>,
    /// All validation errors, by field name; only present when validation failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::HashMap<String, Vec<String>>>)]
    fields: Option<FieldErrors>,
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

    /// Sets `Retry-After`, rounded up to whole seconds.
    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.retry_after = Some(NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN));
        self
    }

    pub fn bad_request() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", "Bad request")
    }

    pub fn validation(fields: FieldErrors) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "validation_error", "Validation failed");
        error.fields = Some(fields);
        error
    }

    pub fn invalid_idempotency_key() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_idempotency_key",
            "Idempotency-Key must be a single value of 1 to 255 printable ASCII characters",
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
        .caused_by("timeout", "the request exceeded its time limit")
    }

    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            "Service temporarily unavailable",
        )
        .retry_after(UNAVAILABLE_FOR)
    }

    /// Internal error for a handler that panicked with `message`.
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
                telemetry::error!(%error, "database operation failed");
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
                telemetry::warn!(%error, "request rejected because password hashing is overloaded");
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
                "The article's current version does not meet the request's precondition",
            ),
            ArticleError::IdempotencyKeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "Idempotency-Key was already used for a different request",
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
