//! Durability, migration and locking of SQLite files, and SQLite in memory.

use pressroom::store::{
    AccountStore, ArticleStore, HealthStore, OutboxStore, StoreError,
    sqlite::{SqliteStore, migrate},
};

use super::fixture::{at, new_article, new_user, task};
use crate::support::sqlite::File;

#[tokio::test]
async fn committed_rows_survive_reopening() {
    let file = File::new();
    let store = file.store();
    let ann = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let article = store
        .insert_article(new_article("One", ann.id, at(0)), task(1, at(0)))
        .await
        .unwrap();
    // The first store stays open, as in another process or after a crash.
    let reopened = file.store();
    let found = reopened.find_article(&article.slug, None).await.unwrap();
    assert_eq!(found, Some(article));
    assert_eq!(reopened.outbox_backlog().await.unwrap().tasks, 1);
    drop(store);
    reopened.insert_user(new_user("bob@example.com")).await.unwrap();
}

#[tokio::test]
async fn a_file_is_migrated_once() {
    let file = File::new();
    assert_eq!(migrate(&file.url()).unwrap().applied.len(), 5);
    assert!(migrate(&file.url()).unwrap().applied.is_empty());
    assert!(file.store().state().await.unwrap().schema.is_current());
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_left_unchanged_and_can_be_used() {
    let file = File::new();
    migrate(&file.url()).unwrap();
    let newer = "INSERT INTO refinery_schema_history VALUES (999, 'later', '', '0')";
    let connection = rusqlite::Connection::open(file.path()).unwrap();
    connection.execute(newer, []).unwrap();
    let migrated = migrate(&file.url()).unwrap();
    assert_eq!((migrated.applied.len(), migrated.newer), (0, Some(999)));
    let store = file.store();
    let state = store.state().await.unwrap();
    assert_eq!(state.problem(), None);
    assert!(state.notice().unwrap().contains("V999"));
    store.insert_user(new_user("ann@example.com")).await.unwrap();
}

#[tokio::test]
async fn a_store_in_memory_reads_what_it_wrote() {
    for url in [":memory:", "sqlite://:memory:"] {
        let store = SqliteStore::open(url).unwrap();
        let ann = store.insert_user(new_user("ann@example.com")).await.unwrap();
        let found = store
            .find_credentials(&pressroom::domain::Email::parse("ANN@example.com").unwrap())
            .await;
        assert_eq!(found.unwrap().unwrap().user, ann);
    }
}

#[tokio::test]
async fn a_file_that_another_process_keeps_locked_is_unavailable() {
    let file = File::new();
    let store = file.store();
    let other = rusqlite::Connection::open(file.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let rejected = store.insert_user(new_user("ann@example.com")).await;
    assert!(
        matches!(rejected, Err(StoreError::Unavailable(_))),
        "{rejected:?}"
    );
    // Reads are not blocked.
    store.ping().await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    store.insert_user(new_user("ann@example.com")).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_rejected() {
    let file = File::new();
    std::fs::write(
        file.path(),
        "certainly not a database, but long enough to look at",
    )
    .unwrap();
    let rejected = SqliteStore::open(&file.url());
    assert!(matches!(rejected, Err(StoreError::Failed(_))), "{rejected:?}");
}
