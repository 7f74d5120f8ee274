//! What is known of a statement without the server remembering it, for connections through a pooler
//! in transaction mode: the next transaction may reach another connection of the server, where no
//! statement that was prepared before exists, unless the pooler sees to that. So a statement's text goes along each time, with the
//! types of its parameters, which the server was asked for once.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use telemetry::Statement;
use tokio_postgres::types::Type;

use super::{super::error::StatementError, connector::Connector};

/// The types of a statement's parameters.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) parameters: Vec<Type>,
    /// Whether the statement is one that gives rows.
    pub(super) gives_rows: bool,
}

/// The signatures of all statements that were sent so far.
pub(super) struct Signatures {
    connector: Connector,
    known: RwLock<HashMap<(usize, usize), Arc<Signature>>>,
}

impl Signatures {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            known: RwLock::default(),
        }
    }

    /// The signature of `statement`, asked for if it is not known. The caller bounds the time.
    pub(super) async fn of(&self, statement: &Statement) -> Result<Arc<Signature>, StatementError> {
        let key = key(statement);
        let known = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.get(&key).cloned()
        };
        if let Some(known) = known {
            return Ok(known);
        }
        // Two first callers may both ask. Boxed: it is rare, and would make the future of each statement
        // several times as large.
        let signature = Arc::new(Box::pin(self.ask(statement)).await?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, Arc::clone(&signature));
        Ok(signature)
    }

    /// Prepares the statement and has it forgotten in one transaction, which one connection of the
    /// server sees all of; on a connection of its own, where nobody else's statements get in between.
    async fn ask(&self, statement: &Statement) -> Result<Signature, StatementError> {
        let (client, driver) = self
            .connector
            .open_in_time()
            .await
            .map_err(StatementError::unavailable)?;
        client.batch_execute("BEGIN").await?;
        let prepared = client.prepare(statement.text).await?;
        let signature = Signature {
            parameters: prepared.params().to_vec(),
            gives_rows: !prepared.columns().is_empty(),
        };
        drop(prepared);
        client.batch_execute("COMMIT").await?;
        drop(client);
        // Says goodbye to the server.
        let _ended = driver.await;
        Ok(signature)
    }
}

/// By the address of the text: texts are constants, and hashing a kilobyte of SQL for each call would
/// cost more than the rest of the look-up.
pub(super) fn key(statement: &Statement) -> (usize, usize) {
    (statement.text.as_ptr().addr(), statement.text.len())
}
