//! The error envelope: the JSON format of every error response.
//!
//! Handlers, middleware and fallbacks return an [`ApiError`]. Its messages equal those of the reference
//! implementation, because clients compare them.
//!
//! Domain errors convert with `From`. [`ApiError::bad_request`] is for a request that cannot be parsed,
//! [`ApiError::validation`] for invalid fields. An unavailable database results in 503, never 500.
//! [`ApiError::internal_error`] is for defects of this program; the cause is logged but not sent.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, LazyLock},
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bounded_server::InvalidRequest;
use serde::Serialize;
use telemetry::ServerError;
use utoipa::ToSchema;

use super::rate_limit;
use crate::{
    accounts::{AccountError, InvalidToken, TooManyAttempts},
    articles::ArticleError,
    outage::OutageLog,
    store::{Constraint, StoreError},
};

/// Value of `Retry-After` if the service is unavailable, in seconds.
const UNAVAILABLE_FOR: NonZeroU32 = NonZeroU32::MIN;

static OVERLOADED_HASHING: LazyLock<Arc<OutageLog>> = LazyLock::new(|| {
    OutageLog::without_successes(
        "requests are rejected because password hashing is overloaded",
        "password hashing is no longer overloaded",
    )
});

/// All validation errors of a request, by field name.
pub type FieldErrors = BTreeMap<String, Vec<String>>;

/// An error response.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    fields: Option<FieldErrors>,
    /// Value of `Retry-After`, in seconds.
    retry_after: Option<NonZeroU32>,
    /// Exceeded quota, for the rate-limit fields of the response.
    exceeded: Option<Box<TooManyAttempts>>,
    /// Internal cause, recorded on the server span but not sent.
    cause: Option<Box<ServerError>>,
}

/// The body of an error response.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// Stable identifier for programs.
    #[schema(example = "article_not_found")]
    code: &'static str,
    /// Human-readable description.
    #[schema(example = "Article not found")]
    message: Cow<'static, str>,
    #[schema(example = 404)]
    status_code: u16,
    /// Trace id of this request, 32 hexadecimal digits; null if telemetry is turned off.
    #[schema(required = true, pattern = "^[0-9a-f]{32}$")]
    trace_id: Option<String>,
    /// All validation errors, by field name; only present if validation failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = std::collections::HashMap<String, Vec<String>>, required = false)]
    fields: Option<FieldErrors>,
}

/// Declares a constructor for each error with a fixed status, code and message. Its name is the code.
macro_rules! errors {
    ($($code:ident: $status:ident, $message:literal;)*) => {
        #[cfg(test)]
        const ERRORS: &[(StatusCode, &str)] = &[$((StatusCode::$status, stringify!($code)),)*];

        impl ApiError {
            $(pub(super) fn $code() -> Self {
                Self::new(StatusCode::$status, stringify!($code), $message)
            })*
        }
    };
}

errors! {
    bad_request: BAD_REQUEST, "Bad request";
    invalid_idempotency_key: BAD_REQUEST,
        "Idempotency-Key must be a single value of 1 to 255 printable ASCII characters";
    unsupported_value: BAD_REQUEST, "The database cannot store a value of the request";
    missing_token: UNAUTHORIZED, "Missing or invalid authorization header";
    invalid_credentials: UNAUTHORIZED, "Invalid credentials";
    wrong_password: FORBIDDEN, "Current password is incorrect";
    invalid_token: UNAUTHORIZED, "Invalid or expired token";
    invalid_token_payload: UNAUTHORIZED, "Invalid token payload";
    user_not_found: UNAUTHORIZED, "User not found";
    not_found: NOT_FOUND, "Not found";
    article_not_found: NOT_FOUND, "Article not found";
    method_not_allowed: METHOD_NOT_ALLOWED, "Method not allowed";
    email_taken: CONFLICT, "Email already registered";
    precondition_failed: PRECONDITION_FAILED,
        "The article's current version does not meet the request's precondition";
    body_too_large: PAYLOAD_TOO_LARGE, "Request body too large";
    unsupported_media_type: UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json";
    idempotency_key_reused: UNPROCESSABLE_ENTITY, "Idempotency-Key was already used for a different request";
    too_many_attempts: TOO_MANY_REQUESTS, "Too many attempts, try again later";
    target_too_long: URI_TOO_LONG, "Request target too long";
    header_too_large: REQUEST_HEADER_FIELDS_TOO_LARGE, "Request header field too large";
    internal_error: INTERNAL_SERVER_ERROR, "Internal server error";
    unknown_transfer_coding: NOT_IMPLEMENTED, "Transfer-Encoding must be chunked";
    request_timeout: SERVICE_UNAVAILABLE, "Request timed out";
    service_unavailable: SERVICE_UNAVAILABLE, "Service temporarily unavailable";
}

impl ApiError {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message: Cow::Borrowed(message),
            fields: None,
            retry_after: None,
            exceeded: None,
            cause: None,
        }
    }

    pub(super) fn validation(fields: FieldErrors) -> Self {
        Self {
            fields: Some(fields),
            ..Self::new(StatusCode::BAD_REQUEST, "validation_error", "Validation failed")
        }
    }

    /// Returns a validation error of one field.
    pub(super) fn invalid_field(name: &str, message: &str) -> Self {
        Self::validation([(name.to_owned(), vec![message.to_owned()])].into())
    }

    /// Returns the error with another message.
    pub(super) fn with_message(self, message: String) -> Self {
        let message = Cow::Owned(message);
        Self { message, ..self }
    }

    pub(super) fn caused_by(self, error_type: &'static str, message: impl Into<String>) -> Self {
        let (error_type, message) = (error_type.into(), message.into());
        let cause = Some(Box::new(ServerError { error_type, message }));
        Self { cause, ..self }
    }
}

impl From<InvalidRequest> for ApiError {
    fn from(problem: InvalidRequest) -> Self {
        match problem {
            InvalidRequest::TargetTooLong => Self::target_too_long(),
            InvalidRequest::HeadTooLarge => Self::header_too_large(),
            InvalidRequest::BodyTooLarge => Self::body_too_large(),
            InvalidRequest::TransferCoding => Self::unknown_transfer_coding(),
            _ => Self::bad_request(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // The store logs its outages.
            StoreError::Unavailable(reason) => {
                Self::service_unavailable().caused_by("database_unavailable", reason)
            }
            StoreError::UnsuitableValue(reason) => {
                telemetry::warn!(reason, "the database rejected a value of the request");
                Self::unsupported_value()
            }
            StoreError::Conflict(Constraint::UserEmail) => AccountError::EmailTaken.into(),
            error @ (StoreError::Conflict(Constraint::ArticleSlug | Constraint::IdempotencyKey)
            | StoreError::Failed(_)) => {
                telemetry::error!(%error, "database operation failed");
                Self::internal_error().caused_by("database_error", error.to_string())
            }
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::EmailTaken => Self::email_taken(),
            AccountError::InvalidCredentials => Self::invalid_credentials(),
            AccountError::WrongPassword => Self::wrong_password(),
            AccountError::InvalidToken(InvalidToken::Untrusted) => Self::invalid_token(),
            AccountError::InvalidToken(InvalidToken::NoUser) => Self::invalid_token_payload(),
            AccountError::UserNotFound => Self::user_not_found(),
            AccountError::TooManyAttempts(exceeded) => Self {
                retry_after: NonZeroU32::new(rate_limit::seconds(exceeded.retry_after)),
                exceeded: Some(Box::new(exceeded)),
                ..Self::too_many_attempts()
            },
            AccountError::Overloaded(error) => {
                OVERLOADED_HASHING.record_failure("hash", &error.to_string());
                Self::service_unavailable().caused_by("overloaded", error.to_string())
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
            ArticleError::PreconditionFailed => Self::precondition_failed(),
            ArticleError::IdempotencyKeyReused => Self::idempotency_key_reused(),
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
        let body = serde_json::to_vec(&body).expect("text and a number always serialise");
        let mut response = (self.status, json_response(body)).into_response();
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(*cause);
        }
        let headers = response.headers_mut();
        let unavailable = self.status == StatusCode::SERVICE_UNAVAILABLE;
        if let Some(wait) = self.retry_after.or(unavailable.then_some(UNAVAILABLE_FOR)) {
            headers.insert(header::RETRY_AFTER, wait.get().into());
        }
        if let Some(exceeded) = self.exceeded {
            rate_limit::write_exceeded(headers, *exceeded);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Returns a response with a JSON body.
pub(super) fn json_response(body: Vec<u8>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_error() {
        let page = include_str!("../../tests/vectors/api.md");
        let (_, table) = page.split_once("| Status | `code` |").unwrap();
        let rows: Vec<_> = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        let others = [
            (StatusCode::BAD_REQUEST, "validation_error"),
            (StatusCode::FORBIDDEN, "not_the_author"),
        ];
        for (status, code) in ERRORS.iter().chain(&others) {
            let row = rows.iter().find(|row| row.contains(&format!("`{code}`")));
            let row = row.unwrap_or_else(|| panic!("{code} is missing"));
            assert!(row.contains(status.as_str()), "{code}: {row}");
        }
    }
}
