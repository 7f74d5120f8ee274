//! PgBouncer in transaction mode: migrations, shared connections, prepared statements and outages. The
//! suite over all stores also runs through PgBouncer.

use std::time::{Duration, Instant};

use futures_util::{
    StreamExt as _,
    future::{join, join_all},
    stream,
};
use pressroom::{
    domain::{TokenKey, UserId},
    store::{
        AccountStore, ArticleStore, HealthStore, StoreError,
        postgres::{PostgresConfig, PostgresStore, migrate},
    },
};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::fixture::{at, new_article, new_user, task};
use crate::support::{
    eventually,
    pgbouncer::{CONNECTIONS, PgBouncer},
    postgres::{self, Database},
    postgres_server::Server,
};

fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(&PostgresConfig::parse(url).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_through_a_pooler_are_applied_once_and_release_their_locks() {
    let database = Database::empty().await;
    let pooler = PgBouncer::without_prepared_statements(&database.url);
    let config = PostgresConfig::parse(&pooler.url(&database.url)).unwrap();
    // The second round would block on locks that remain on the pooler's connections.
    for first in [true, false] {
        let applied = join_all((0..2).map(|_| migrate(&config))).await;
        let mut counts: Vec<_> = applied
            .into_iter()
            .map(|migrated| migrated.unwrap().applied.len())
            .collect();
        counts.sort_unstable();
        assert_eq!((counts[0], counts[1] > 0), (0, first), "{counts:?}");
    }
    let client = database.client().await;
    let locks = "SELECT FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("the locks to be released", async || {
        client.query(locks, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;
    let state = connect(&pooler.url(&database.url)).state().await.unwrap();
    assert_eq!(state.problem(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_share_few_connections_and_leave_no_state_on_them() {
    let database = Database::migrated().await;
    let pooler = PgBouncer::without_prepared_statements(&database.url);
    let stores: Vec<_> = (0..4).map(|_| connect(&pooler.url(&database.url))).collect();
    let author = stores[0].insert_user(new_user("ann@example.com")).await.unwrap();
    let work = stores.iter().enumerate().map(|(process, store)| {
        let articles = (0..50).map(move |number| async move {
            let slug = format!("article-{process}-{number}");
            let article = new_article(&slug, author.id, at(number));
            let id = i64::try_from(process).unwrap() * 1000 + number + 1;
            let article = store.insert_article(article, task(id, at(number))).await.unwrap();
            let favourited = store.favorite(&slug, author.id, at(number)).await.unwrap();
            assert_eq!(favourited.unwrap().favorites_count, 1);
            let found = store.find_article(&slug, Some(author.id)).await.unwrap().unwrap();
            assert_eq!((found.id, found.favorited), (article.id, true));
            // Runs several statements in one transaction.
            let reader = new_user(&format!("{slug}@example.com"));
            store.insert_user(reader).await.unwrap();
        });
        // At most as many calls as the pool has connections; more would time out on a slow machine.
        stream::iter(articles).buffer_unordered(8).collect::<()>()
    });
    join_all(work).await;

    let client = database.client().await;
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()",
            &[],
        )
        .await
        .unwrap();
    assert!((1..=CONNECTIONS).contains(&row.get::<_, i64>(0)), "{row:?}");
    let inserted = client.query_one(
        "SELECT count(*) FROM users JOIN articles ON email = slug || '@example.com'",
        &[],
    );
    assert_eq!(inserted.await.unwrap().get::<_, i64>(0), 200);
    let other = postgres::client(&pooler.url_without_settings(&database.url)).await;
    for _ in 0..20 {
        assert_eq!(session_state(&other).await, ["0", "0"]);
    }
}

/// Returns the state that another client of the pooler finds on its connection: `statement_timeout` and the
/// number of prepared statements.
async fn session_state(other: &Client) -> [String; 2] {
    let state = "SELECT current_setting('statement_timeout'), (SELECT count(*) FROM pg_prepared_statements)";
    let messages = other.simple_query(state).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    [0, 1].map(|column| row.unwrap().get(column).unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_prepared_on_a_pooler_that_supports_it() {
    let database = Database::migrated().await;
    let pooler = PgBouncer::with_prepared_statements(&database.url);
    let url = pooler.url(&database.url);
    let stores: Vec<_> = (0..4).map(|_| connect(&url)).collect();
    for _ in 0..5 {
        let calls = stores.iter().cycle().take(40).map(|store| store.state());
        for state in join_all(calls).await {
            assert_eq!(state.unwrap().problem(), None);
        }
    }
    let other = postgres::client(&pooler.url_without_settings(&database.url)).await;
    let [time_out, prepared] = session_state(&other).await;
    assert_eq!(time_out, "0");
    assert_ne!(prepared, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_quickly_while_the_server_behind_a_pooler_is_stopped_and_recover() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    let pooler = PgBouncer::without_prepared_statements(&server.url());
    let store = connect(&pooler.url(&server.url()));
    store.ping().await.unwrap();
    server.stop();
    for _ in 0..3 {
        let start = Instant::now();
        let pinged = store.ping().await;
        assert!(matches!(pinged, Err(StoreError::Unavailable(_))), "{pinged:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let written = store.insert_user(new_user("ann@example.com")).await;
        assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
    }
    server.resume();
    eventually("the store to recover", async || {
        store.ping().await.ok()?;
        store.insert_user(new_user("bob@example.com")).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_pooler_is_reported_with_the_missing_setting() {
    let database = Database::migrated().await;
    let pooler = PgBouncer::without_prepared_statements(&database.url);
    let store = connect(&pooler.url_without_settings(&database.url));
    let hint = eventually("a failed call", async || {
        // Statements on several connections, so that the pooler runs some on a connection that has not prepared them.
        let calls = (0..50).map(async |_| {
            let token = TokenKey("key".to_owned());
            let (session, state) = join(store.find_session(UserId(1), &token), store.state()).await;
            [session.err(), state.err()]
        });
        join_all(calls)
            .await
            .into_iter()
            .flatten()
            .find_map(|error| match error {
                Some(StoreError::Failed(reason)) => Some(reason),
                _ => None,
            })
    })
    .await;
    assert!(hint.contains("pool_mode=transaction"), "{hint}");
}
