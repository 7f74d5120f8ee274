//! Maps SQLite's errors to [`StoreError`].

use rusqlite::ErrorCode;

pub(super) use crate::store::error::StatementError;
use crate::store::{Constraint, StoreError, error::SCHEMA_HINT};

impl From<rusqlite::Error> for StatementError {
    fn from(error: rusqlite::Error) -> Self {
        let message = error.to_string();
        // The state of the file or its disk; no statement causes these.
        let unusable = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::ReadOnly
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::DatabaseCorrupt
            )
        );
        // The message names the columns, each of which has one unique constraint.
        let error_for_store = if message.contains("users.email_folded") {
            StoreError::Conflict(Constraint::UserEmail)
        } else if message.contains("articles.slug") {
            StoreError::Conflict(Constraint::ArticleSlug)
        } else if is_missing(&message) {
            StoreError::Unavailable(format!("{message}{SCHEMA_HINT}"))
        } else if unusable {
            StoreError::Unavailable(message)
        } else {
            StoreError::Failed(message)
        };
        Self {
            code: error.sqlite_error().map(|error| error.extended_code.to_string()),
            error: error_for_store,
            connection_lost: false,
        }
    }
}

/// Whether the table or column that a statement needs does not exist. SQLite has no error code for this.
fn is_missing(message: &str) -> bool {
    ["no such table", "no such column", "has no column named"]
        .iter()
        .any(|missing| message.contains(missing))
}
