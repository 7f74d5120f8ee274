//! One connection shared by many callers: statements are pipelined, each prepared at first use.

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
    super::error::StatementError,
    Params, again,
    answer::{Answer, Prepared},
    signature::{Signatures, key},
};

/// An open connection with its prepared statements.
pub(super) struct Session {
    client: Client,
    prepared: RwLock<HashMap<(usize, usize), Prepared>>,
    /// There where statements are not prepared on the connection.
    signatures: Option<Arc<Signatures>>,
    /// Answers received. One that does not grow while a caller runs out of time means that
    /// nobody is there.
    answers: AtomicU64,
    /// Told when it must be replaced though it looks open.
    pub(super) unusable: Notify,
    /// An answer said that the connection is about to end, which it may not have done yet.
    ending: AtomicBool,
}

impl Session {
    pub(super) fn new(client: Client, signatures: Option<Arc<Signatures>>) -> Self {
        Self {
            client,
            prepared: RwLock::default(),
            signatures,
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

    /// Runs one statement; the second try covers one that was prepared before the schema changed.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Answer, StatementError> {
        match self.run_prepared(statement, params).await {
            Err(error) if error.outdated_statement() => {
                again(&error);
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
        let fresh = match &self.signatures {
            Some(signatures) => Prepared::InFull(statement.text, signatures.of(statement).await?),
            // Two first callers may both prepare it; one of the two is then forgotten.
            None => Prepared::Named(self.answered(self.client.prepare(statement.text).await)?),
        };
        self.write_prepared(|prepared| prepared.insert(key(statement), fresh.clone()));
        Ok(fresh)
    }

    /// Counts an answer, which may be a refusal.
    fn answered<T>(&self, answer: Result<T, tokio_postgres::Error>) -> Result<T, StatementError> {
        if answer
            .as_ref()
            .map_or_else(|error| error.as_db_error().is_some(), |_| true)
        {
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
        answer.map_err(StatementError::from).inspect_err(|error| {
            if error.connection_lost() {
                self.ending.store(true, Ordering::Relaxed);
                self.unusable.notify_one();
            }
        })
    }

    fn write_prepared<T>(&self, change: impl FnOnce(&mut HashMap<(usize, usize), Prepared>) -> T) -> T {
        change(&mut self.prepared.write().unwrap_or_else(PoisonError::into_inner))
    }
}
