//! The HTTP API over both stores: its contract, its races, its outages.

mod behaviour;
mod contract;
mod outages;
mod races;

use std::sync::Arc;

use pressroom::store::{Store, postgres::PostgresStore};

use crate::support::{postgres, sqlite};

/// A store on a database of its own, which lives as long as this.
struct Kept<T> {
    store: Arc<dyn Store>,
    _database: T,
}

async fn on_postgres() -> Kept<postgres::Database> {
    let database = postgres::Database::migrated().await;
    let store = PostgresStore::connect(&database.config()).unwrap();
    Kept {
        store: Arc::new(store),
        _database: database,
    }
}

fn on_sqlite() -> Kept<sqlite::File> {
    let file = sqlite::File::new();
    Kept {
        store: Arc::new(file.store()),
        _database: file,
    }
}
