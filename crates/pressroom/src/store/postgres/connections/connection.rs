//! One open connection, with statements prepared on first use. Several callers may pipeline statements on it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use telemetry::Statement;
use tokio::{sync::Notify, time::Instant};
use tokio_postgres::Client;

use super::{
    result::StatementResult,
    retry::record_retry,
    statement::{Params, Prepared, StatementMap},
    types::TypeCache,
};
use crate::store::postgres::error::{Result, StatementError};

/// An open connection with its prepared statements.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) opened: Instant,
    prepared: StatementMap<tokio_postgres::Statement>,
    /// Set when statements are not prepared on the connection.
    types: Option<Arc<TypeCache>>,
    /// Number of responses received. If it does not grow while a caller times out, the server is silent.
    responses: AtomicU64,
    /// Notified when the connection must be replaced although it looks open.
    pub(super) unusable: Notify,
    /// Whether the server announced that it is closing the connection, which may still be open.
    closing: AtomicBool,
}

impl Connection {
    pub(super) fn new(client: Client, types: Option<Arc<TypeCache>>) -> Self {
        Self {
            client,
            opened: Instant::now(),
            prepared: StatementMap::default(),
            types,
            responses: AtomicU64::new(0),
            unusable: Notify::new(),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closing.load(Ordering::Relaxed) || self.client.is_closed()
    }

    pub(super) fn responses(&self) -> u64 {
        self.responses.load(Ordering::Relaxed)
    }

    /// Runs one statement. Retries it once if it lost a race against another transaction, or was prepared
    /// before the schema changed.
    pub(super) async fn run(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        match self.run_once(statement, params).await {
            Err(error) if error.lost_race() || error.outdated_statement() => {
                record_retry(&error);
                if error.outdated_statement() {
                    self.forget(statement);
                }
                self.run_once(statement, params).await
            }
            result => result,
        }
    }

    async fn run_once(&self, statement: &Statement, params: Params<'_>) -> Result<StatementResult> {
        let prepared = self.prepare(statement).await?;
        self.received(StatementResult::fetch(&self.client, &prepared, params).await)
    }

    /// Forgets a prepared statement, so that its next use prepares it again.
    pub(super) fn forget(&self, statement: &Statement) {
        self.prepared.remove(statement);
    }

    pub(super) async fn prepare(&self, statement: &Statement) -> Result<Prepared> {
        if let Some(types) = &self.types {
            return Ok(Prepared::InFull(statement.text, types.of(statement).await?));
        }
        if let Some(known) = self.prepared.get(statement) {
            return Ok(Prepared::Named(known));
        }
        // If two callers prepare a statement concurrently, one result is dropped.
        let prepared = self.received(self.client.prepare(statement.text).await)?;
        self.prepared.insert(statement, prepared.clone());
        Ok(Prepared::Named(prepared))
    }

    /// Counts the response, which may be an error, and notes the loss of the connection.
    fn received<T>(&self, result: Result<T, tokio_postgres::Error>) -> Result<T> {
        let error = result.as_ref().err();
        if error.is_none_or(|error| error.as_db_error().is_some()) {
            self.responses.fetch_add(1, Ordering::Relaxed);
        }
        result.map_err(StatementError::from).inspect_err(|error| {
            if error.connection_lost {
                self.closing.store(true, Ordering::Relaxed);
                self.unusable.notify_one();
            }
        })
    }
}
