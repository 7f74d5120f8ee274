//! Errors that callers of a store can act on.

use std::borrow::Cow;

/// The reason a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or did not answer in time; a retry may succeed. A write whose
    /// answer was lost may have been committed.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The row would violate a constraint that callers handle.
    #[error("conflict on {0:?}")]
    Conflict(Constraint),
    /// Any other failure: a defect of this program or of the schema.
    #[error("the database refused a statement: {0}")]
    Failed(String),
}

impl telemetry::Failure for StoreError {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Unavailable(_) => Some(Cow::Borrowed("database_unavailable")),
            Self::Failed(_) => Some(Cow::Borrowed("database_error")),
            Self::Conflict(_) => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// Constraints whose violation callers handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    UserEmail,
    ArticleSlug,
    IdempotencyKey,
}

/// The result of a store method.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
