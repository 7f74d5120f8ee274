//! The parameter types of statements, for connections through a pooler in transaction mode.
//!
//! Such a pooler may send the next transaction over another connection to the server, where earlier prepared
//! statements do not exist unless the pooler tracks them. Therefore a statement's text is sent each time,
//! together with the types of its parameters, which are queried once.

use std::sync::Arc;

use futures_util::future::try_join;
use telemetry::Statement;

use super::{
    connector::Connector,
    statement::{StatementMap, StatementTypes},
};
use crate::store::postgres::error::{Result, StatementError};

/// The types of every statement sent so far.
pub(super) struct TypeCache {
    connector: Connector,
    known: StatementMap<Arc<StatementTypes>>,
}

impl TypeCache {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            known: StatementMap::default(),
        }
    }

    /// Returns the types of `statement`, querying the server if they are not known. The caller must set a
    /// time-out.
    pub(super) async fn of(&self, statement: &Statement) -> Result<Arc<StatementTypes>> {
        if let Some(known) = self.known.get(statement) {
            return Ok(known);
        }
        // Concurrent first callers may each query the server. Boxed because it is rare and would make the future
        // of each statement several times larger.
        let types = Arc::new(Box::pin(self.ask(statement)).await?);
        self.known.insert(statement, Arc::clone(&types));
        Ok(types)
    }

    /// Prepares and deallocates the statement in one transaction, which the pooler sends over one connection
    /// to the server. Uses a separate connection, so that no other caller's statement interferes.
    async fn ask(&self, statement: &Statement) -> Result<StatementTypes> {
        let (client, driver) = self
            .connector
            .open_in_time()
            .await
            .map_err(StatementError::unavailable)?;
        // Sent together, for one round trip.
        let ((), prepared) = try_join(client.batch_execute("BEGIN"), client.prepare(statement.text)).await?;
        let types = StatementTypes {
            parameters: prepared.params().to_vec(),
            returns_rows: !prepared.columns().is_empty(),
        };
        drop(prepared);
        client.batch_execute("COMMIT").await?;
        drop(client);
        // Waits until the connection is closed.
        let _ended = driver.await;
        Ok(types)
    }
}
