//! The types of statements, for connections through a pooler in transaction mode.
//!
//! The next transaction may reach another connection of the server, where no earlier prepared statement
//! exists unless the pooler provides it. So a statement's text is sent each time, with the types of its
//! parameters, which the server is asked for once.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use telemetry::Statement;

use super::{
    connector::Connector,
    statement::{StatementKey, StatementTypes, key},
};
use crate::store::postgres::error::StatementError;

/// The types of every statement sent so far.
pub(super) struct TypeCache {
    connector: Connector,
    known: RwLock<HashMap<StatementKey, Arc<StatementTypes>>>,
}

impl TypeCache {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            known: RwLock::default(),
        }
    }

    /// Returns the types of `statement`, asking the server if they are not known. The caller bounds the time.
    pub(super) async fn of(&self, statement: &Statement) -> Result<Arc<StatementTypes>, StatementError> {
        let key = key(statement);
        let known = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.get(&key).cloned()
        };
        if let Some(known) = known {
            return Ok(known);
        }
        // Two concurrent first callers may both ask. Boxed because it is rare and would make the future of
        // each statement several times larger.
        let types = Arc::new(Box::pin(self.ask(statement)).await?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, Arc::clone(&types));
        Ok(types)
    }

    /// Prepares and deallocates the statement in one transaction, which runs on one connection of the server;
    /// over a connection of its own, where no other caller's statements come in between.
    async fn ask(&self, statement: &Statement) -> Result<StatementTypes, StatementError> {
        let (client, driver) = self
            .connector
            .open_in_time()
            .await
            .map_err(StatementError::unavailable)?;
        client.batch_execute("BEGIN").await?;
        let prepared = client.prepare(statement.text).await?;
        let types = StatementTypes {
            parameters: prepared.params().to_vec(),
            returns_rows: !prepared.columns().is_empty(),
        };
        drop(prepared);
        client.batch_execute("COMMIT").await?;
        drop(client);
        // Waits until the connection is closed in order.
        let _ended = driver.await;
        Ok(types)
    }
}
