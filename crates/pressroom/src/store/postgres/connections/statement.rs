//! Statements as they are sent: their parameters, their prepared form, and their retries.

use std::sync::Arc;

use telemetry::{Failure as _, Statement};
use tokio_postgres::types::{ToSql, Type};

use crate::store::postgres::error::StatementError;

/// A statement's parameters.
pub(in crate::store::postgres) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement that can be sent.
#[derive(Clone)]
pub(super) enum Prepared {
    /// A name that the server knows for as long as the connection lives.
    Named(tokio_postgres::Statement),
    /// The text and its types, sent in full each time.
    InFull(&'static str, Arc<StatementTypes>),
}

/// The types of a statement, as the server describes it.
#[derive(Debug)]
pub(super) struct StatementTypes {
    pub(super) parameters: Vec<Type>,
    pub(super) returns_rows: bool,
}

/// Identifies a statement in a map of prepared ones.
pub(super) type StatementKey = (usize, usize);

/// Returns the address of the statement's text: texts are constants, and hashing a kilobyte of SQL for each
/// call would cost more than the rest of the look-up.
pub(super) fn key(statement: &Statement) -> StatementKey {
    (statement.text.as_ptr().addr(), statement.text.len())
}

/// Records on the statement's span, and in the log, that it is retried.
pub(super) fn record_retry(error: &StatementError) {
    telemetry::statement_sent_again(error);
    telemetry::debug!(cause = error.message(), "retrying a statement");
}
