//! PgBouncer in transaction mode: what the store's suite does not show.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pressroom::store::{
    Store, StoreError,
    postgres::{PostgresConfig, PostgresStore, migrate},
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
async fn migrating_takes_turns_through_a_pooler_and_leaves_no_lock_behind() {
    let database = Database::empty().await;
    let pooler = PgBouncer::without_prepared_statements(&database.url);
    let config = PostgresConfig::parse(&pooler.url(&database.url)).unwrap();
    // The second round finds what the first left on the pooler's connections.
    for first in [true, false] {
        let applied = join_all((0..2).map(|_| migrate(&config))).await;
        let mut counts: Vec<_> = applied.into_iter().map(|names| names.unwrap().len()).collect();
        counts.sort_unstable();
        assert_eq!((counts[0], counts[1] > 0), (0, first), "{counts:?}");
    }
    let client = database.client().await;
    let locks = "SELECT FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("the locks to be gone", async || {
        client.query(locks, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(
        connect(&pooler.url(&database.url))
            .schema_is_current()
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_share_few_connections_and_leave_nothing_on_them() {
    let database = Database::migrated().await;
    let pooler = PgBouncer::without_prepared_statements(&database.url);
    let stores: Vec<_> = (0..4).map(|_| connect(&pooler.url(&database.url))).collect();
    let author = stores[0].insert_user(new_user("ann@example.com")).await.unwrap();
    let work = stores.iter().enumerate().flat_map(|(process, store)| {
        (0..50).map(move |number| async move {
            let slug = format!("article-{process}-{number}");
            let article = new_article(&slug, author.id, at(number));
            let id = i64::try_from(process).unwrap() * 1000 + number + 1;
            let article = store.insert_article(article, task(id, at(number))).await.unwrap();
            let liked = store.favorite(&slug, author.id, at(number)).await.unwrap();
            assert_eq!(liked.unwrap().favorites_count, 1);
            let found = store.find_article(&slug, Some(author.id)).await.unwrap().unwrap();
            assert_eq!((found.id, found.favorited), (article.id, true));
            // Several statements in one transaction.
            let reader = new_user(&format!("{slug}@example.com"));
            store.insert_user(reader).await.unwrap();
        })
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
    let kept = client.query_one(
        "SELECT count(*) FROM users JOIN articles ON email = slug || '@example.com'",
        &[],
    );
    assert_eq!(kept.await.unwrap().get::<_, i64>(0), 200);
    let other = postgres::client(&pooler.url_without_settings(&database.url)).await;
    for _ in 0..20 {
        assert_eq!(left_behind(&other).await, ["0", "0"]);
    }
}

/// What another application finds on a connection that it is given: the time-out of statements, and how
/// many are prepared.
async fn left_behind(other: &Client) -> [String; 2] {
    let left = "SELECT current_setting('statement_timeout'), (SELECT count(*) FROM pg_prepared_statements)";
    let answers = other.simple_query(left).await.unwrap();
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    [0, 1].map(|column| row.unwrap().get(column).unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_knows_prepared_statements_is_given_them() {
    let database = Database::migrated().await;
    let pooler = PgBouncer::with_prepared_statements(&database.url);
    let url = pooler.url(&database.url);
    let stores: Vec<_> = (0..4).map(|_| connect(&url)).collect();
    for _ in 0..5 {
        let asked = stores
            .iter()
            .cycle()
            .take(40)
            .map(|store| store.schema_is_current());
        for answer in join_all(asked).await {
            assert!(answer.unwrap());
        }
    }
    let other = postgres::client(&pooler.url_without_settings(&database.url)).await;
    let [time_out, prepared] = left_behind(&other).await;
    assert_eq!(time_out, "0");
    assert_ne!(prepared, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_behind_a_pooler_is_told_quickly_and_works_again() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    let pooler = PgBouncer::without_prepared_statements(&server.url());
    let store = connect(&pooler.url(&server.url()));
    store.ping().await.unwrap();
    server.stop();
    for _ in 0..3 {
        let asked = Instant::now();
        let pinged = store.ping().await;
        assert!(matches!(pinged, Err(StoreError::Unavailable(_))), "{pinged:?}");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        let written = store.insert_user(new_user("ann@example.com")).await;
        assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
    }
    server.resume();
    eventually("it works again", async || {
        store.ping().await.ok()?;
        store.insert_user(new_user("bob@example.com")).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_that_there_is_a_pooler_is_told_what_to_say() {
    let database = Database::migrated().await;
    let pooler = PgBouncer::without_prepared_statements(&database.url);
    let store = connect(&pooler.url_without_settings(&database.url));
    let hint = eventually("a refusal", async || {
        let asked = join_all((0..50).map(|_| store.schema_is_current())).await;
        asked.into_iter().find_map(|answer| match answer {
            Err(StoreError::Failed(reason)) => Some(reason),
            _ => None,
        })
    })
    .await;
    assert!(hint.contains("pool_mode=transaction"), "{hint}");
}
