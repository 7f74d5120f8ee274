//! Errors that callers of a store can act on.

use std::borrow::Cow;

use telemetry::{DbError, Failure};

/// Reason a store method failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, did not respond in time, is damaged or lacks the schema; a retry may
    /// succeed. A write whose response was lost may have been committed.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The row would violate a constraint that callers handle.
    #[error("conflict on {0:?}")]
    Conflict(Constraint),
    /// The database cannot store or compare a value, for example because its encoding lacks a character.
    #[error("the database cannot hold a value: {0}")]
    UnsuitableValue(String),
    /// Any other failure: a defect of this program or of the schema.
    #[error("the database rejected a statement: {0}")]
    Failed(String),
}

impl StoreError {
    /// Returns the error for a statement that did not return the expected row.
    pub(super) fn no_row() -> Self {
        Self::Failed("a statement returned no row".to_owned())
    }
}

impl Failure for StoreError {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Unavailable(_) => Some(Cow::Borrowed("database_unavailable")),
            Self::Failed(_) => Some(Cow::Borrowed("database_error")),
            Self::UnsuitableValue(_) | Self::Conflict(_) => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// Hint in errors that a missing or outdated schema causes.
pub(super) const SCHEMA_HINT: &str = " (run pressroom migrate)";

/// Failure of a statement, with the database's error code for its span.
#[derive(Debug, Clone)]
pub(super) struct StatementError {
    /// The SQLSTATE, or SQLite's extended result code.
    pub(super) code: Option<String>,
    pub(super) error: StoreError,
    /// Whether the connection was also lost.
    pub(super) connection_lost: bool,
}

impl StatementError {
    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        StoreError::Unavailable(reason.into()).into()
    }

    pub(super) fn failed(reason: &str) -> Self {
        StoreError::Failed(reason.to_owned()).into()
    }
}

impl From<StoreError> for StatementError {
    fn from(error: StoreError) -> Self {
        Self {
            code: None,
            error,
            connection_lost: false,
        }
    }
}

impl From<StatementError> for StoreError {
    fn from(failed: StatementError) -> Self {
        failed.error
    }
}

impl Failure for StatementError {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        self.error.error_type()
    }

    fn message(&self) -> String {
        self.error.to_string()
    }
}

impl DbError for StatementError {
    fn status_code(&self) -> Option<String> {
        self.code.clone()
    }
}

/// Constraints whose violation callers handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    UserEmail,
    ArticleSlug,
    IdempotencyKey,
}

/// Result of a store method.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
