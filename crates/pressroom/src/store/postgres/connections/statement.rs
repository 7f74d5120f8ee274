//! Statements for the server: parameters, prepared form, and retries.

use std::sync::Arc;

use telemetry::{Failure as _, Statement};
use tokio_postgres::types::{ToSql, Type};

use crate::store::postgres::error::StatementError;

/// Parameters of a statement.
pub(in crate::store::postgres) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement that can be sent.
#[derive(Clone)]
pub(super) enum Prepared {
    /// Name of a prepared statement, valid on its connection.
    Named(tokio_postgres::Statement),
    /// Text and types, which are sent each time.
    InFull(&'static str, Arc<StatementTypes>),
}

/// Types of a statement, as described by the server.
#[derive(Debug)]
pub(super) struct StatementTypes {
    pub(super) parameters: Vec<Type>,
    pub(super) returns_rows: bool,
}

/// Key of a statement in a map of prepared statements.
pub(super) type StatementKey = (usize, usize);

/// Returns the address and length of the statement's text: texts are constants, and hashing a kilobyte of SQL
/// per call would cost more than the rest of the look-up.
pub(super) fn key(statement: &Statement) -> StatementKey {
    (statement.text.as_ptr().addr(), statement.text.len())
}

/// Records a retry on the statement's span and in the log.
pub(super) fn record_retry(error: &StatementError) {
    telemetry::statement_retried(error);
    telemetry::debug!(cause = error.message(), "retrying a statement");
}
