//! What a statement gave back.

use std::{pin::pin, sync::Arc};

use futures_util::TryStreamExt;
use telemetry::Returned;
use tokio_postgres::{Client, Row};

use super::{Params, signature::Signature};

/// A statement that can be sent.
#[derive(Clone)]
pub(super) enum Prepared {
    /// The server knows it by a name, for as long as the connection lives.
    Named(tokio_postgres::Statement),
    /// The server is told all of it each time.
    InFull(&'static str, Arc<Signature>),
}

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
        prepared: &Prepared,
        params: Params<'_>,
    ) -> Result<Self, tokio_postgres::Error> {
        let (answers, gives_rows) = match prepared {
            Prepared::Named(statement) => (
                client.query_raw(statement, params.iter().copied()).await?,
                !statement.columns().is_empty(),
            ),
            Prepared::InFull(text, signature) => {
                let types = signature.parameters.iter().cloned();
                let answers = client.query_typed_raw(text, params.iter().copied().zip(types));
                (answers.await?, signature.gives_rows)
            }
        };
        let mut answers = pin!(answers);
        let mut rows = Vec::new();
        while let Some(row) = answers.try_next().await? {
            rows.push(row);
        }
        let affected = answers.rows_affected().unwrap_or_default();
        Ok(Self {
            rows,
            affected,
            gives_rows,
        })
    }
}
