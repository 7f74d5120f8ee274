//! Maps PostgreSQL's errors to [`StoreError`]. Messages keep the SQLSTATE and omit anything that may contain
//! values of rows.

use std::{error::Error as _, io};

use telemetry::Statement;
use tokio_postgres::error::SqlState;

pub(super) use crate::store::error::StatementError;
use crate::store::{Constraint, StoreError};

impl StatementError {
    pub(super) fn is(&self, state: &SqlState) -> bool {
        self.code.as_deref() == Some(state.code())
    }

    /// Whether the server refused the statement and the connection can still be used.
    pub(super) fn is_answer(&self) -> bool {
        self.code.is_some() && !self.connection_lost
    }

    /// Whether a concurrent transaction won; a retry is likely to succeed.
    pub(super) fn lost_race(&self) -> bool {
        self.is(&SqlState::T_R_SERIALIZATION_FAILURE) || self.is(&SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether `statement` may be retried over another connection: it only reads, and its connection was
    /// lost.
    pub(super) fn allows_read_retry(&self, statement: &Statement) -> bool {
        self.connection_lost && statement.operation == "SELECT"
    }

    /// Whether a prepared statement was invalidated by a schema change, or is unknown to the server.
    pub(super) fn outdated_statement(&self) -> bool {
        self.is(&SqlState::FEATURE_NOT_SUPPORTED) || self.is(&SqlState::INVALID_SQL_STATEMENT_NAME)
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        StatementError::from(error).error
    }
}

impl From<tokio_postgres::Error> for StatementError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            let error = without_answer(&error);
            return Self {
                code: None,
                connection_lost: matches!(error, StoreError::Unavailable(_)),
                error,
            };
        };
        Self {
            code: Some(refusal.code().code().to_owned()),
            error: refused(refusal),
            // The server shuts down, or an operator terminated the session.
            connection_lost: refusal.code().code().starts_with("57P"),
        }
    }
}

/// Advice for errors that only a pooler in transaction mode causes.
const POOLER_HINT: &str =
    " (behind a pooler in transaction mode, add pool_mode=transaction to the database URL)";

/// Maps an error that the server answered with.
fn refused(refusal: &tokio_postgres::error::DbError) -> StoreError {
    let state = refusal.code();
    if *state == SqlState::UNIQUE_VIOLATION
        && let Some(constraint) = refusal.constraint().and_then(named)
    {
        return StoreError::Conflict(constraint);
    }
    // Messages of class 22 (data exception) quote the offending value.
    let message = if state.code().starts_with("22") {
        "data exception"
    } else {
        refusal.message()
    };
    let hint = if matches!(
        *state,
        SqlState::DUPLICATE_PSTATEMENT | SqlState::INVALID_SQL_STATEMENT_NAME
    ) {
        POOLER_HINT
    } else {
        ""
    };
    let message = format!("{}: {message}{hint}", state.code());
    if is_temporary(state) {
        StoreError::Unavailable(message)
    } else {
        StoreError::Failed(message)
    }
}

/// Maps a missing or unreadable answer.
fn without_answer(error: &tokio_postgres::Error) -> StoreError {
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    match io {
        Some(io) => StoreError::Unavailable(format!("{error}: {}", io.kind())),
        None if error.is_closed() => StoreError::Unavailable(error.to_string()),
        None => StoreError::Failed(error.to_string()),
    }
}

fn named(constraint: &str) -> Option<Constraint> {
    match constraint {
        "ix_users_email" => Some(Constraint::UserEmail),
        "ix_articles_slug" => Some(Constraint::ArticleSlug),
        _ => None,
    }
}

/// Whether the same statement may succeed later without a repair: connections (08), resources (53),
/// operator intervention including statement time-outs (57), lost races (40001, 40P01), locks held too
/// long (55P03), a standby about to be promoted (25006).
fn is_temporary(state: &SqlState) -> bool {
    let code = state.code();
    ["08", "53", "57"].iter().any(|class| code.starts_with(class))
        || matches!(code, "40001" | "40P01" | "55P03" | "25006")
}
