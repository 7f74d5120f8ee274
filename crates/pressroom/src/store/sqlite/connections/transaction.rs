//! Statements within one transaction.

use rusqlite::{Connection, OptionalExtension, Params, Row, TransactionBehavior};
use telemetry::{Database, Returned, Statement};

use crate::store::sqlite::error::StatementError;

/// A transaction, whose statements all see the same snapshot.
pub(in crate::store::sqlite) struct Transaction<'a> {
    inner: rusqlite::Transaction<'a>,
    /// Statement after which the current span is named.
    named: &'static Statement,
    database: Database,
}

impl<'a> Transaction<'a> {
    pub(super) fn begin(
        connection: &'a mut Connection,
        behavior: TransactionBehavior,
        named: &'static Statement,
        database: Database,
    ) -> Result<Self, StatementError> {
        Ok(Self {
            inner: connection.transaction_with_behavior(behavior)?,
            named,
            database,
        })
    }

    pub(super) fn commit(self) -> Result<(), StatementError> {
        Ok(self.inner.commit()?)
    }

    /// Runs a statement that returns at most one row.
    pub(in crate::store::sqlite) fn row<T>(
        &self,
        statement: &Statement,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StatementError> {
        self.observed(statement, || {
            let row = self.inner.query_row(statement.text, params, read);
            Ok(row.optional()?)
        })
    }

    /// Returns all rows of a statement.
    pub(in crate::store::sqlite) fn rows<T>(
        &self,
        statement: &Statement,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StatementError> {
        self.rows_while(statement, params, |row| read(row).map(Some))
    }

    /// Returns the rows of a statement that precede the first one for which `read` returns `None`.
    pub(in crate::store::sqlite) fn rows_while<T>(
        &self,
        statement: &Statement,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Vec<T>, StatementError> {
        self.observed(statement, || {
            let mut prepared = self.inner.prepare(statement.text)?;
            let rows = prepared.query_map(params, read)?;
            let rows = rows.map_while(Result::transpose);
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Runs a statement, and returns the number of changed rows.
    pub(in crate::store::sqlite) fn execute(
        &self,
        statement: &Statement,
        params: impl Params,
    ) -> Result<usize, StatementError> {
        self.observed(statement, || Ok(self.inner.execute(statement.text, params)?))
    }

    /// Runs `work` in a child span, unless the current span is named after the statement.
    fn observed<T: Returned>(
        &self,
        statement: &Statement,
        work: impl FnOnce() -> Result<T, StatementError>,
    ) -> Result<T, StatementError> {
        if statement.text == self.named.text {
            work()
        } else {
            self.database.observe_blocking(statement, work)
        }
    }
}
