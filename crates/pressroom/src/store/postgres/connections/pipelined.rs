//! One connection shared by many callers, with statements pipelined and prepared on first use.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use telemetry::Statement;
use tokio::sync::Notify;
use tokio_postgres::Client;

use super::{
    answer::Answer,
    statement::{Params, Prepared, StatementKey, key, record_retry},
    types::TypeCache,
};
use crate::store::postgres::error::StatementError;

/// An open connection with its prepared statements.
pub(super) struct PipelinedConnection {
    client: Client,
    prepared: RwLock<HashMap<StatementKey, Prepared>>,
    /// Set when statements are not prepared on the connection.
    types: Option<Arc<TypeCache>>,
    /// Number of answers received. The server is silent when it does not grow while a caller times out.
    answers: AtomicU64,
    /// Notified when the connection must be replaced although it looks open.
    pub(super) unusable: Notify,
    /// Whether an answer announced the end of the connection, which may not have been closed yet.
    ending: AtomicBool,
}

impl PipelinedConnection {
    pub(super) fn new(client: Client, types: Option<Arc<TypeCache>>) -> Self {
        Self {
            client,
            prepared: RwLock::default(),
            types,
            answers: AtomicU64::new(0),
            unusable: Notify::new(),
            ending: AtomicBool::new(false),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ending.load(Ordering::Relaxed) || self.client.is_closed()
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Runs one statement, with one retry when it was prepared before the schema changed.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        match self.run_prepared(statement, params).await {
            Err(error) if error.outdated_statement() => {
                record_retry(&error);
                self.write_prepared(|prepared| prepared.remove(&key(statement)));
                self.run_prepared(statement, params).await
            }
            answer => answer,
        }
    }

    async fn run_prepared(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        let prepared = self.prepare(statement).await?;
        self.answered(Answer::to(&self.client, &prepared, params).await)
    }

    async fn prepare(&self, statement: &Statement) -> Result<Prepared, StatementError> {
        let known = {
            let prepared = self.prepared.read().unwrap_or_else(PoisonError::into_inner);
            prepared.get(&key(statement)).cloned()
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let fresh = match &self.types {
            Some(types) => Prepared::InFull(statement.text, types.of(statement).await?),
            // Two concurrent first callers may both prepare it; one result is dropped.
            None => Prepared::Named(self.answered(self.client.prepare(statement.text).await)?),
        };
        self.write_prepared(|prepared| prepared.insert(key(statement), fresh.clone()));
        Ok(fresh)
    }

    /// Counts an answer, including a refusal.
    fn answered<T>(&self, answer: Result<T, tokio_postgres::Error>) -> Result<T, StatementError> {
        if answer
            .as_ref()
            .map_or_else(|error| error.as_db_error().is_some(), |_| true)
        {
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        answer.map_err(StatementError::from).inspect_err(|error| {
            if error.connection_lost {
                self.ending.store(true, Ordering::Relaxed);
                self.unusable.notify_one();
            }
        })
    }

    fn write_prepared<T>(&self, change: impl FnOnce(&mut HashMap<StatementKey, Prepared>) -> T) -> T {
        change(&mut self.prepared.write().unwrap_or_else(PoisonError::into_inner))
    }
}
