//! The result of a statement.

use std::pin::pin;

use futures_util::TryStreamExt;
use telemetry::Returned;
use tokio_postgres::{Client, Row};

use super::statement::{Params, Prepared};

/// The rows of a statement, and the number of rows selected or changed.
pub(in crate::store::postgres) struct StatementResult {
    pub(in crate::store::postgres) rows: Vec<Row>,
    pub(in crate::store::postgres) affected: u64,
    returns_rows: bool,
}

impl Returned for StatementResult {
    fn returned_rows(&self) -> Option<i64> {
        self.returns_rows
            .then(|| i64::try_from(self.rows.len()).unwrap_or(i64::MAX))
    }
}

impl StatementResult {
    /// Reads the first row, if there is one.
    pub(in crate::store::postgres) fn first<T>(
        &self,
        read: impl FnOnce(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<T>, tokio_postgres::Error> {
        self.rows.first().map(read).transpose()
    }

    /// Reads all rows.
    pub(in crate::store::postgres) fn all<T>(
        &self,
        read: impl FnMut(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, tokio_postgres::Error> {
        self.rows.iter().map(read).collect()
    }

    /// Returns the size of the rows.
    pub(super) fn bytes(&self) -> usize {
        self.rows.iter().map(Row::raw_size_bytes).sum()
    }

    /// Runs a statement. Sends everything on the first poll, so that statements polled one after another are
    /// pipelined in that order.
    pub(super) async fn fetch(
        client: &Client,
        prepared: &Prepared,
        params: Params<'_>,
    ) -> Result<Self, tokio_postgres::Error> {
        let (stream, returns_rows) = match prepared {
            Prepared::Named(statement) => (
                client.query_raw(statement, params.iter().copied()).await?,
                !statement.columns().is_empty(),
            ),
            Prepared::InFull(text, types) => {
                let parameter_types = types.parameters.iter().cloned();
                let stream = client.query_typed_raw(text, params.iter().copied().zip(parameter_types));
                (stream.await?, types.returns_rows)
            }
        };
        let mut stream = pin!(stream);
        let mut rows = Vec::new();
        while let Some(row) = stream.try_next().await? {
            rows.push(row);
        }
        Ok(Self {
            rows,
            affected: stream.rows_affected().unwrap_or_default(),
            returns_rows,
        })
    }
}
