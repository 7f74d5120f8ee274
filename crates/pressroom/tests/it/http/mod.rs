//! The HTTP API over both stores: its contract, its races, its outages.

mod behaviour;
mod conditions;
mod contract;
mod hardening;
mod idempotency;
mod outages;
mod races;
mod rate_limits;

use std::sync::Arc;

use pressroom::store::{Store, postgres::PostgresStore};

use crate::support::{postgres, sqlite};

/// Runs each function over PostgreSQL and over SQLite.
macro_rules! over_both_stores {
    ($($name:ident)*) => {
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let kept = crate::http::on_postgres().await;
                    super::$name(kept.store.clone()).await;
                }
            )*
        }
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let kept = crate::http::on_sqlite();
                    super::$name(kept.store.clone()).await;
                }
            )*
        }
    };
}
use over_both_stores;

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
