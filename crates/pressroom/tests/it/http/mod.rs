//! Tests of the HTTP API over both stores.

mod accounts;
mod behaviour;
mod compression;
mod conditions;
mod contract;
mod crafted;
mod hardening;
mod idempotency;
mod limits;
mod lists;
mod outages;
mod races;
mod rate_limits;

use std::sync::Arc;

use pressroom::{
    health::TaskQueue,
    store::{Store, postgres::PostgresStore},
};

use crate::support::{
    api::{self, Api, RecordedTime, Setup},
    postgres, sqlite,
};

/// Declares two tests for each function, one on PostgreSQL and one on SQLite.
macro_rules! over_both_stores {
    ($($name:ident)*) => {
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let fixture = crate::http::on_postgres().await;
                    super::$name(fixture.store.clone()).await;
                }
            )*
        }
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let fixture = crate::http::on_sqlite();
                    super::$name(fixture.store.clone()).await;
                }
            )*
        }
    };
}
use over_both_stores;

/// A store with its own database, which is removed on drop.
struct TestStore<T> {
    store: Arc<dyn Store>,
    _database: T,
}

async fn on_postgres() -> TestStore<postgres::Database> {
    let database = postgres::Database::migrated().await;
    let store = PostgresStore::connect(&database.config()).unwrap();
    TestStore {
        store: Arc::new(store),
        _database: database,
    }
}

/// A server on an SQLite store of its own.
struct Running {
    api: Api,
    _fixture: TestStore<sqlite::File>,
}

/// Starts a server on SQLite, with changes to the default set-up.
async fn start(change: impl FnOnce(&mut Setup)) -> Running {
    let fixture = on_sqlite();
    let clock = Arc::new(RecordedTime);
    Running {
        api: api::start_with_setup(fixture.store.clone(), TaskQueue::InProcess, clock, change).await,
        _fixture: fixture,
    }
}

fn on_sqlite() -> TestStore<sqlite::File> {
    let file = sqlite::File::new();
    TestStore {
        store: Arc::new(file.store()),
        _database: file,
    }
}
