//! The HTTP API over both stores: its contract, its races, its odd inputs.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod api;
mod contract;
mod outages;
mod races;

#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
#[path = "../support/raw_http.rs"]
mod raw;
#[path = "../support/redis_server.rs"]
mod redis_server;
#[path = "../support/sqlite.rs"]
mod sqlite;

use std::sync::Arc;

use pressroom::store::{Store, postgres::PostgresStore};

/// A store on a database of its own, which lives as long as this.
pub struct Kept<T> {
    pub store: Arc<dyn Store>,
    _database: T,
}

pub async fn on_postgres() -> Kept<postgres::Database> {
    let database = postgres::Database::migrated().await;
    let store = PostgresStore::connect(&database.config()).unwrap();
    Kept {
        store: Arc::new(store),
        _database: database,
    }
}

pub fn on_sqlite() -> Kept<sqlite::File> {
    let file = sqlite::File::new();
    Kept {
        store: Arc::new(file.store()),
        _database: file,
    }
}
