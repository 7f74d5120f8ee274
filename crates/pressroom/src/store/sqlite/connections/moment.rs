//! Statements within one transaction.

use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior};
use telemetry::{Database, Returned, Statement};

use crate::store::sqlite::error::StatementError;

/// A transaction, whose statements all see the same state.
pub(in crate::store::sqlite) struct Moment<'a> {
    transaction: Transaction<'a>,
    /// The statement that the span in force is named after.
    named: Statement,
    database: Database,
}

impl<'a> Moment<'a> {
    pub(super) fn begin(
        connection: &'a mut Connection,
        behavior: TransactionBehavior,
        named: Statement,
        database: Database,
    ) -> Result<Self, StatementError> {
        Ok(Self {
            transaction: connection.transaction_with_behavior(behavior)?,
            named,
            database,
        })
    }

    pub(super) fn commit(self) -> Result<(), StatementError> {
        Ok(self.transaction.commit()?)
    }

    /// The row of a statement that gives one or none.
    pub(in crate::store::sqlite) fn row<T>(
        &self,
        statement: &Statement,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StatementError> {
        self.observed(statement, || {
            let row = self.transaction.query_row(statement.text, params, read);
            Ok(row.optional()?)
        })
    }

    /// All rows of a statement.
    pub(in crate::store::sqlite) fn rows<T>(
        &self,
        statement: &Statement,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StatementError> {
        self.observed(statement, || {
            let mut prepared = self.transaction.prepare(statement.text)?;
            let rows = prepared.query_map(params, read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How many rows a statement changed.
    pub(in crate::store::sqlite) fn execute(
        &self,
        statement: &Statement,
        params: impl Params,
    ) -> Result<usize, StatementError> {
        self.observed(statement, || {
            Ok(self.transaction.execute(statement.text, params)?)
        })
    }

    /// Runs a statement once for each of these parameters, as one operation; how many rows it changed.
    pub(in crate::store::sqlite) fn execute_each<P: Params>(
        &self,
        statement: &Statement,
        each: impl IntoIterator<Item = P>,
    ) -> Result<usize, StatementError> {
        self.observed(statement, || {
            let mut prepared = self.transaction.prepare(statement.text)?;
            let mut changed = 0;
            for params in each {
                changed += prepared.execute(params)?;
            }
            Ok(changed)
        })
    }

    /// The statement that the span in force is named after belongs to that one.
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
