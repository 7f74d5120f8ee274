//! The suite that every store must pass: PostgreSQL, PostgreSQL behind a pooler, and SQLite.

mod accounts;
mod articles;
mod deliveries;
mod favorites;
mod list;
mod outbox;

use pressroom::{
    domain::{ListQuery, PageStart},
    store::{Constraint, StoreError},
};

use super::fixture::Fixture;

/// Declares a test of each function for each store, on a fresh database.
macro_rules! over_all_stores {
    ($($name:ident)*) => {
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::fixture::Fixture::postgres().await).await;
                }
            )*
        }
        mod on_pgbouncer {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::fixture::Fixture::pgbouncer().await).await;
                }
            )*
        }
        mod on_pgbouncer_with_prepared_statements {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::fixture::Fixture::pgbouncer_with_prepared_statements().await).await;
                }
            )*
        }
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::fixture::Fixture::sqlite()).await;
                }
            )*
        }
    };
}
use over_all_stores;

over_all_stores! {
    the_store_responds_and_its_schema_is_current
}

async fn the_store_responds_and_its_schema_is_current(fixture: Fixture) {
    fixture.store.ping().await.unwrap();
    let state = fixture.store.state().await.unwrap();
    assert_eq!(state.problem(), None);
    assert_eq!(state.notice(), None);
}

fn is_conflict<T>(result: &Result<T, StoreError>, constraint: Constraint) -> bool {
    matches!(result, Err(StoreError::Conflict(broken)) if *broken == constraint)
}

fn list(start: PageStart, limit: i64) -> ListQuery {
    ListQuery {
        start,
        limit,
        ..ListQuery::default()
    }
}

fn search(text: &str) -> ListQuery {
    ListQuery {
        search: Some(text.to_owned()),
        ..list(PageStart::Offset(0), 100)
    }
}
