//! Maps PostgreSQL's errors to [`StoreError`]. Messages contain the SQLSTATE, but nothing that may quote
//! values of rows.

use std::{error::Error as _, io};

use tokio_postgres::error::{DbError, SqlState};

pub(super) use crate::store::error::StatementError;
use crate::store::{Constraint, StoreError, error::SCHEMA_HINT};

/// Result of a statement.
pub(super) type Result<T, E = StatementError> = std::result::Result<T, E>;

impl StatementError {
    pub(super) fn is(&self, state: &SqlState) -> bool {
        self.code.as_deref() == Some(state.code())
    }

    /// Whether the database cannot hold a parameter's value.
    pub(super) fn is_unsuitable_value(&self) -> bool {
        matches!(self.error, StoreError::UnsuitableValue(_))
    }

    /// Whether no response is outstanding: the server responded, or the connection was lost.
    pub(super) fn was_received(&self) -> bool {
        self.code.is_some() || self.connection_lost
    }

    /// Whether a concurrent transaction won, so that a retry is likely to succeed.
    pub(super) fn lost_race(&self) -> bool {
        self.is(&SqlState::T_R_SERIALIZATION_FAILURE) || self.is(&SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether the prepared statement was invalidated by a schema change, or is unknown to the server.
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
        let Some(response) = error.as_db_error() else {
            let error = without_response(&error);
            return Self {
                code: None,
                connection_lost: matches!(error, StoreError::Unavailable(_)),
                error,
            };
        };
        Self {
            code: Some(response.code().code().to_owned()),
            error: rejected(response),
            // The server is shutting down, or an operator terminated the session.
            connection_lost: response.code().code().starts_with("57P"),
        }
    }
}

/// Hint in errors that only a pooler in transaction mode causes.
const POOLER_HINT: &str =
    " (behind a pooler in transaction mode, add pool_mode=transaction to the database URL)";

/// Maps the server's error response.
fn rejected(response: &DbError) -> StoreError {
    let state = response.code();
    if *state == SqlState::UNIQUE_VIOLATION
        && let Some(constraint) = response.constraint().and_then(handled_constraint)
    {
        return StoreError::Conflict(constraint);
    }
    // Messages of class 22 (data exception) quote the offending value.
    let message = if rejects_value(state) {
        "data exception"
    } else {
        response.message()
    };
    let hint = match *state {
        SqlState::DUPLICATE_PSTATEMENT | SqlState::INVALID_SQL_STATEMENT_NAME => POOLER_HINT,
        SqlState::INSUFFICIENT_PRIVILEGE => "",
        _ if is_missing(state) => SCHEMA_HINT,
        _ => "",
    };
    let message = format!("{}: {message}{hint}", state.code());
    if *state == SqlState::CHARACTER_NOT_IN_REPERTOIRE {
        // Parameters are valid UTF-8 without NUL, so a row is the cause.
        StoreError::Unavailable(format!("{}: a row has text that is not UTF-8", state.code()))
    } else if rejects_value(state) {
        StoreError::UnsuitableValue(message)
    } else if is_temporary(state) || is_missing(state) {
        StoreError::Unavailable(message)
    } else {
        StoreError::Failed(message)
    }
}

/// Maps an error without a readable response.
fn without_response(error: &tokio_postgres::Error) -> StoreError {
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    match io {
        Some(io) => StoreError::Unavailable(format!("{error}: {}", io.kind())),
        None if error.is_closed() => StoreError::Unavailable(error.to_string()),
        None => StoreError::Failed(error.to_string()),
    }
}

fn handled_constraint(constraint: &str) -> Option<Constraint> {
    match constraint {
        "ix_users_email" => Some(Constraint::UserEmail),
        "ix_articles_slug" => Some(Constraint::ArticleSlug),
        _ => None,
    }
}

/// Whether a parameter has a value that the database cannot store, because of its encoding (22P05), the
/// length of a column in bytes (22001), its range (22003, 22008) or the size of an index entry (54000). The
/// statements are constants, so data exceptions (22) have no other causes.
fn rejects_value(state: &SqlState) -> bool {
    state.code().starts_with("22") || *state == SqlState::PROGRAM_LIMIT_EXCEEDED
}

/// Whether the database, schema, table, column, function, constraint or privilege that a statement needs is
/// missing.
fn is_missing(state: &SqlState) -> bool {
    matches!(
        state.code(),
        "3D000" | "3F000" | "42501" | "42703" | "42704" | "42883" | "42P01" | "42P10"
    )
}

/// Whether the state of the server or of other transactions is the cause, so that the same statement may succeed
/// later: connection failures (08), insufficient resources (53), operator intervention including statement
/// time-outs (57), failures of the disk or the operating system (58), damaged data (XX001, XX002), lost races
/// (40001, 40P01), lock time-outs (55P03), and a standby that is about to be promoted (25006).
fn is_temporary(state: &SqlState) -> bool {
    let code = state.code();
    ["08", "53", "57", "58"]
        .iter()
        .any(|class| code.starts_with(class))
        || matches!(code, "40001" | "40P01" | "55P03" | "25006" | "XX001" | "XX002")
}
