//! The index of trigrams: how it is built with and without the necessary privilege, and while others write.

use std::time::Duration;

use futures_util::future::join_all;
use pressroom::{
    domain::ListQuery,
    store::{
        ArticleStore,
        postgres::{PostgresConfig, PostgresStore, TitleIndex, index_titles, migrate},
    },
};
use tokio_postgres::Client;

use crate::support::{
    eventually,
    postgres::{self, Database},
    postgres_server::Server,
};

const INDEX: &str = "SELECT indisvalid FROM pg_index
    WHERE indexrelid = to_regclass('ix_articles_title_trigrams')";

/// Returns whether the index is valid, or `None` if it does not exist.
async fn index(client: &Client) -> Option<bool> {
    let row = client.query_opt(INDEX, &[]).await.unwrap();
    row.map(|row| row.get(0))
}

/// Creates a migrated database without the index, or returns `None` if the server lacks the extension.
async fn without_index() -> Option<(Database, Client)> {
    let database = Database::empty().await;
    migrate(&database.config()).await.unwrap();
    let client = database.client().await;
    let available = "SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'";
    if client.query(available, &[]).await.unwrap().is_empty() {
        let unavailable = index_titles(&database.config()).await.unwrap();
        assert!(
            matches!(unavailable, TitleIndex::Unavailable(_)),
            "{unavailable:?}"
        );
        return None;
    }
    Some((database, client))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_is_built_once_by_concurrent_processes() {
    let Some((database, client)) = without_index().await else {
        return;
    };
    let config = database.config();
    let results = join_all((0..4).map(|_| index_titles(&config))).await;
    let mut built = 0;
    for result in results {
        match result.unwrap() {
            TitleIndex::Built => built += 1,
            TitleIndex::Present | TitleIndex::InProgress => {}
            unavailable @ TitleIndex::Unavailable(_) => panic!("{unavailable:?}"),
        }
    }
    assert_eq!(built, 1);
    assert_eq!(index(&client).await, Some(true));
    assert_eq!(index_titles(&config).await.unwrap(), TitleIndex::Present);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_not_blocked_while_the_build_waits_for_an_older_transaction() {
    let Some((database, client)) = without_index().await else {
        return;
    };
    let old = database.client().await;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        .await
        .unwrap();
    let config = database.config();
    let building = tokio::spawn(async move { index_titles(&config).await });
    eventually("the build to wait", async || {
        let waiting = "SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX%'";
        (!client.query(waiting, &[]).await.unwrap().is_empty()).then_some(())
    })
    .await;
    // Another process does not wait either.
    assert_eq!(
        index_titles(&database.config()).await.unwrap(),
        TitleIndex::InProgress
    );
    client
        .batch_execute(
            "SET lock_timeout TO '100ms';
            INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
            VALUES ('ann@example.com', 'hash', 'Ann', '', '', now(), now());
            INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
            VALUES ('one', 'One title', '', 'body', 1, 0, now(), now());
            UPDATE articles SET title = 'Another title'",
        )
        .await
        .unwrap();
    old.batch_execute("COMMIT").await.unwrap();
    assert_eq!(building.await.unwrap().unwrap(), TitleIndex::Built);
    let found = ListQuery {
        limit: 20,
        search: Some("NOTHER".to_owned()),
        ..ListQuery::default()
    };
    assert_eq!(database.store().list_articles(found).await.unwrap().total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_index_is_replaced_with_the_extension_in_any_schema() {
    let Some((database, client)) = without_index().await else {
        return;
    };
    client
        .batch_execute(r#"CREATE SCHEMA "Its own"; CREATE EXTENSION pg_trgm SCHEMA "Its own""#)
        .await
        .unwrap();
    assert_eq!(index_titles(&database.config()).await.unwrap(), TitleIndex::Built);
    // An interrupted build leaves such an index.
    client
        .batch_execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_articles_title_trigrams'::regclass")
        .await
        .unwrap();
    assert_eq!(index(&client).await, Some(false));
    assert_eq!(index_titles(&database.config()).await.unwrap(), TitleIndex::Built);
    assert_eq!(index(&client).await, Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_cannot_create_the_extension_migrates_without_the_index() {
    let server = Server::start();
    let admin = postgres::client(&server.url()).await;
    admin
        .batch_execute(
            "CREATE ROLE limited LOGIN;
            GRANT CREATE, USAGE ON SCHEMA public TO limited",
        )
        .await
        .unwrap();
    let config = PostgresConfig::parse(&server.url().replace("postgres@", "limited@")).unwrap();
    migrate(&config).await.unwrap();
    let unavailable = index_titles(&config).await.unwrap();
    assert!(
        matches!(&unavailable, TitleIndex::Unavailable(reason) if !reason.is_empty()),
        "{unavailable:?}"
    );
    assert_eq!(index(&admin).await, None);
    let store = PostgresStore::connect(&config).unwrap();
    let found = ListQuery {
        limit: 20,
        search: Some("title".to_owned()),
        ..ListQuery::default()
    };
    assert_eq!(store.list_articles(found.clone()).await.unwrap().total, 0);

    // Once the extension exists, the next migration builds the index.
    if admin.batch_execute("CREATE EXTENSION pg_trgm").await.is_ok() {
        assert_eq!(index_titles(&config).await.unwrap(), TitleIndex::Built);
        assert_eq!(index(&admin).await, Some(true));
        tokio::time::timeout(Duration::from_secs(5), store.list_articles(found))
            .await
            .unwrap()
            .unwrap();
    }
}
