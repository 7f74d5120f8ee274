//! Maps SQLite's errors to [`StoreError`].

use std::borrow::Cow;

use rusqlite::ErrorCode;
use telemetry::{DbError, Failure};

use crate::store::{Constraint, StoreError};

/// A statement's failure: the store's error, and SQLite's result code for its span.
#[derive(Debug)]
pub(super) struct StatementError {
    code: Option<i32>,
    error: StoreError,
}

impl StatementError {
    pub(super) fn unavailable(reason: &str) -> Self {
        Self {
            code: None,
            error: StoreError::Unavailable(reason.to_owned()),
        }
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self {
            code: None,
            error: StoreError::Failed(reason.into()),
        }
    }
}

impl From<StatementError> for StoreError {
    fn from(failed: StatementError) -> Self {
        failed.error
    }
}

impl From<rusqlite::Error> for StatementError {
    fn from(error: rusqlite::Error) -> Self {
        let message = error.to_string();
        let temporary = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::OperationInterrupted
            )
        );
        // SQLite names the columns; each has one unique constraint.
        let error_for_store = if message.contains("users.email_folded") {
            StoreError::Conflict(Constraint::UserEmail)
        } else if message.contains("articles.slug") {
            StoreError::Conflict(Constraint::ArticleSlug)
        } else if temporary {
            StoreError::Unavailable(message)
        } else {
            StoreError::Failed(message)
        };
        Self {
            code: error.sqlite_error().map(|error| error.extended_code),
            error: error_for_store,
        }
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
        self.code.map(|code| code.to_string())
    }
}
