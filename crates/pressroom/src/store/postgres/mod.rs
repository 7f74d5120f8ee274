//! PostgreSQL, with the tables of the reference implementation, which can use them at the same time, and with
//! additional tables.
//!
//! Each aggregate has a file with its statements. All statements go through `connections`, which gives each a
//! span.

mod accounts;
mod articles;
mod calls;
mod config;
mod connections;
mod deliveries;
mod error;
mod health;
mod indexes;
mod list;
mod migrations;
mod outbox;
mod published;
mod replica;
mod search_totals;
mod title_index;
mod value;

use std::sync::Arc;

use self::{
    calls::StatementGroups,
    connections::{Connections, Primary},
    replica::Replica,
    search_totals::SearchTotals,
};
pub use self::{
    config::{InvalidUrl, PostgresConfig, Sizes},
    connections::SetupError,
    migrations::migrate,
    title_index::{TitleIndex, index_titles},
};
use crate::domain::UserId;

/// A store on PostgreSQL: a primary, and optionally a replica.
///
/// The replica lags behind, so it only serves reads by callers without an account, who cannot have written
/// anything. Articles that the replica does not have are read from the primary.
pub struct PostgresStore {
    primary: Arc<Primary>,
    replica: Option<Replica>,
    search_totals: SearchTotals,
    groups: StatementGroups,
}

impl PostgresStore {
    /// Starts connecting in the background. While the database is down, methods fail with
    /// [`StoreError::Unavailable`](super::StoreError::Unavailable). Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub fn connect(config: &PostgresConfig) -> Result<Self, SetupError> {
        let primary = Arc::new(Primary::open(config)?);
        Ok(Self {
            replica: None,
            search_totals: SearchTotals::default(),
            groups: StatementGroups::new(&primary),
            primary,
        })
    }

    /// Uses a replica for reads by callers without an account whenever it is usable. Must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] when the trusted certificates cannot be read.
    pub fn reading_from(self, replica: &PostgresConfig) -> Result<Self, SetupError> {
        let replica = Replica::open(replica, Arc::clone(&self.primary))?;
        Ok(Self {
            replica: Some(replica),
            ..self
        })
    }

    /// Returns the replica if a read by this viewer may use it.
    fn replica_for(&self, viewer: Option<UserId>) -> Option<&Connections> {
        match viewer {
            Some(_) => None,
            None => self.replica.as_ref().and_then(Replica::usable),
        }
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ArticleEvent, ArticleId},
        store::DeliveryStore as _,
    };

    /// Each call of a store method copies its future to the heap.
    #[tokio::test]
    async fn futures_of_statements_are_small() {
        let config = PostgresConfig::parse("postgres://u@h/d").unwrap();
        let store = PostgresStore::connect(&config).unwrap();
        let slow = store.recipients(ArticleId(1), ArticleEvent::Created, UserId(0), 1);
        assert!(size_of_val(&*slow) < 4096, "{}", size_of_val(&*slow));
    }
}
