//! What a statement gave back.

use std::pin::pin;

use futures_util::TryStreamExt;
use telemetry::Returned;
use tokio_postgres::{Client, Row};

use super::Params;

/// Rows, and how many were selected or changed.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) affected: u64,
    /// Whether the statement is one that gives rows.
    gives_rows: bool,
}

impl Returned for Answer {
    fn returned_rows(&self) -> Option<i64> {
        self.gives_rows
            .then(|| i64::try_from(self.rows.len()).unwrap_or(i64::MAX))
    }
}

impl Answer {
    /// Runs `prepared` once. Everything is sent at the first poll, so that statements polled one
    /// after another are pipelined in that order.
    pub(super) async fn to(
        client: &Client,
        prepared: &tokio_postgres::Statement,
        params: Params<'_>,
    ) -> Result<Self, tokio_postgres::Error> {
        let mut answers = pin!(client.query_raw(prepared, params.iter().copied()).await?);
        let mut rows = Vec::new();
        while let Some(row) = answers.try_next().await? {
            rows.push(row);
        }
        let affected = answers.rows_affected().unwrap_or_default();
        Ok(Self {
            rows,
            affected,
            gives_rows: !prepared.columns().is_empty(),
        })
    }
}
