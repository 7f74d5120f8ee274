//! PostgreSQL that is down, silent, slow, restarted or cut off: answers stay quick, and everything
//! works again by itself.

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use jiff::Timestamp;
use pressroom::{
    accounts::{Email, NewUser, PasswordHash, TokenKey, UserId},
    articles::{ArticleId, ListQuery, PageStart, Precondition},
    store::{
        Result, Store, StoreError,
        postgres::{PostgresConfig, PostgresStore, migrate},
    },
};

use tokio_postgres::Client;

use crate::support::postgres::Database;
use crate::support::postgres_proxy::Proxy;
use crate::support::postgres_server::Server;

/// What a caller is promised.
const AT_MOST: Duration = Duration::from_secs(2);

fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(&PostgresConfig::parse(url).unwrap()).unwrap()
}

fn list() -> ListQuery {
    ListQuery {
        start: PageStart::Offset(0),
        limit: 20,
        search: None,
        viewer: None,
    }
}

fn new_user(email: &str) -> NewUser {
    NewUser {
        email: Email::parse(email).unwrap(),
        password_hash: PasswordHash("hash".to_owned()),
        name: "Name".to_owned(),
        created_at: Timestamp::UNIX_EPOCH,
    }
}

/// How many of [`one_of_each`] only read.
const READS: usize = 3;

/// One method for each way to the database: the lane, a scan, a sweep, a transaction.
fn one_of_each(store: &PostgresStore) -> Vec<BoxFuture<'_, Result<()>>> {
    vec![
        Box::pin(store.ping()),
        Box::pin(async {
            let token = TokenKey("key".to_owned());
            store.find_session(UserId(1), &token).await.map(drop)
        }),
        Box::pin(async { store.list_articles(list()).await.map(drop) }),
        Box::pin(async { store.purge_revoked_tokens(Timestamp::UNIX_EPOCH).await.map(drop) }),
        Box::pin(async {
            store
                .delete_article(ArticleId(1), Precondition::default())
                .await
                .map(drop)
        }),
    ]
}

/// Asks in every way, one after another and then many at once: all are told quickly.
async fn assert_unavailable(store: &PostgresStore) {
    for ways in [1, 20] {
        let asked: Vec<_> = (0..ways).flat_map(|_| one_of_each(store)).collect();
        let answers = join_all(asked.into_iter().map(async |answer| {
            let start = Instant::now();
            (answer.await, start.elapsed())
        }));
        for (answer, took) in answers.await {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
            assert!(took < AT_MOST, "{took:?}");
        }
    }
}

/// Waits until every way works again, and then all of them do.
async fn assert_works_again(store: &PostgresStore) {
    let start = Instant::now();
    loop {
        let answers = join_all(one_of_each(store)).await;
        if answers.iter().all(Result::is_ok) {
            break;
        }
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Ok(()) | Err(StoreError::Unavailable(_)))),
            "{answers:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(20), "{answers:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for answer in join_all((0..10).flat_map(|_| one_of_each(store))).await {
        answer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_told_quickly_and_a_restarted_one_works() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    let store = connect(&server.url());
    assert_works_again(&store).await;
    for _ in 0..2 {
        server.stop();
        assert_unavailable(&store).await;
        server.resume();
        assert_works_again(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_can_be_made_before_its_server_is_up() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    server.stop();
    let store = connect(&server.url());
    assert_unavailable(&store).await;
    server.resume();
    assert_works_again(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_told_quickly_and_works_when_it_speaks_again() {
    let database = Database::migrated().await;
    let proxy = Proxy::in_front_of(&database.url).await;
    let store = connect(&proxy.url(&database.url));
    assert_works_again(&store).await;
    proxy.stall();
    assert_unavailable(&store).await;
    proxy.resume();
    assert_works_again(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_says_nothing_is_told_quickly() {
    let database = Database::migrated().await;
    let proxy = Proxy::in_front_of(&database.url).await;
    proxy.stall();
    let store = connect(&proxy.url(&database.url));
    assert_unavailable(&store).await;
    proxy.resume();
    assert_works_again(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_connections_are_replaced() {
    let database = Database::migrated().await;
    let admin = database.client().await;
    let mut config = database.config();
    (config.lanes, config.pool_size) = (2, 1);
    for _ in 0..4 {
        let store = PostgresStore::connect(&config).unwrap();
        // Opens the pool's connection too.
        for answer in join_all(one_of_each(&store)).await {
            answer.unwrap();
        }
        settled(&admin, 3).await;
        let cut = admin
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(cut.len(), 3);
        // Reads do not notice; a write, which may have been done, fails once at most.
        for way in 0..one_of_each(&store).len() {
            let allowed = if way < READS { 0 } else { 1 };
            let mut refusals = Vec::new();
            loop {
                match one_of_each(&store).swap_remove(way).await {
                    Ok(()) => break,
                    Err(StoreError::Unavailable(reason)) => refusals.push(reason),
                    Err(error) => panic!("{error}"),
                }
                assert!(refusals.len() <= allowed, "way {way}: {refusals:?}");
            }
        }
        drop(store);
        settled(&admin, 0).await;
    }
}

/// Waits until so many connections of stores are open, set up, and idle, and no others.
async fn settled(admin: &Client, connections: i64) {
    let start = Instant::now();
    loop {
        let row = admin
            .query_one(
                "SELECT count(*), count(*) FILTER (WHERE state = 'idle' AND query <> '')
                FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()",
                &[],
            )
            .await
            .unwrap();
        if (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (connections, connections) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_a_lock_gives_up_and_holds_nobody_up_for_long() {
    let database = Database::migrated().await;
    let store = database.store();
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let mut other = database.client().await;
    let held = other.transaction().await.unwrap();
    held.batch_execute("SELECT FROM users FOR UPDATE").await.unwrap();

    let start = Instant::now();
    let (old, new) = (PasswordHash("hash".to_owned()), PasswordHash("new".to_owned()));
    let blocked = store.upgrade_password_hash(user.id, &old, &new).await;
    assert!(matches!(blocked, Err(StoreError::Unavailable(_))), "{blocked:?}");
    assert!(start.elapsed() < AT_MOST);
    held.rollback().await.unwrap();
    for _ in 0..4 {
        store.ping().await.unwrap();
    }
    store.upgrade_password_hash(user.id, &old, &new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_survive_a_change_of_the_schema() {
    let database = Database::migrated().await;
    let store = database.store();
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let token = TokenKey("key".to_owned());
    let admin = database.client().await;
    for kind in ["text", "varchar(300)"] {
        for _ in 0..4 {
            store.find_session(user.id, &token).await.unwrap();
            store.list_articles(list()).await.unwrap();
        }
        admin
            .batch_execute(&format!(
                "ALTER TABLE users ALTER COLUMN name TYPE {kind}; ALTER TABLE articles ALTER COLUMN title TYPE {kind}"
            ))
            .await
            .unwrap();
        for _ in 0..4 {
            let session = store.find_session(user.id, &token).await.unwrap().unwrap();
            assert_eq!(session.user.name, "Name");
            store.list_articles(list()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_no_transaction_open() {
    let database = Database::migrated().await;
    let store = database.store();
    let mut other = database.client().await;
    store.insert_user(new_user("first@example.com")).await.unwrap();
    let held = other.transaction().await.unwrap();
    held.batch_execute("LOCK TABLE users IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let left = tokio::time::timeout(
        Duration::from_millis(200),
        store.insert_user(new_user("ann@example.com")),
    );
    assert!(left.await.is_err(), "the lock holds it");
    held.rollback().await.unwrap();
    let watcher = database.client().await;
    let start = Instant::now();
    loop {
        let open = watcher
            .query(
                "SELECT FROM pg_stat_activity WHERE datname = current_database()
                AND pid <> pg_backend_pid() AND state <> 'idle'",
                &[],
            )
            .await
            .unwrap();
        if open.is_empty() {
            break;
        }
        assert!(start.elapsed() < AT_MOST);
    }
    // Done or not, but not in between.
    let again = store.insert_user(new_user("bob@example.com")).await;
    again.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_store_closes_its_connections() {
    let database = Database::migrated().await;
    let store = database.store();
    for answer in join_all(one_of_each(&store)).await {
        answer.unwrap();
    }
    drop(store);
    settled(&database.client().await, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_name_themselves() {
    let database = Database::migrated().await;
    let store = database.store();
    store.ping().await.unwrap();
    let watcher = database.client().await;
    let named = watcher.query(
        "SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'pressroom'",
        &[],
    );
    assert!(!named.await.unwrap().is_empty());
}
