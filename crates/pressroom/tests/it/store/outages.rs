//! Outages of PostgreSQL: stopped, stalled, slow or restarted servers and terminated connections. Calls
//! fail quickly, and the store recovers on its own.

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use jiff::Timestamp;
use pressroom::{
    domain::{ArticleId, Email, ListQuery, NewUser, PasswordHash, Precondition, TokenKey, UserId},
    store::{
        AccountStore, ArticleStore, HealthStore, Result, StoreError,
        postgres::{PostgresConfig, PostgresStore, migrate},
    },
};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::support::postgres::Database;
use crate::support::postgres_proxy::Proxy;
use crate::support::postgres_server::Server;

/// Maximum time for a call to fail, by the timers of the runtime: a pause of the whole process delays the call's own
/// timer, too, and does not count.
const FAILURE_LIMIT: Duration = Duration::from_secs(2);

fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(&PostgresConfig::parse(url).unwrap()).unwrap()
}

fn list() -> ListQuery {
    ListQuery {
        limit: 20,
        ..ListQuery::default()
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

/// Number of calls of [`calls`] that only read.
const READS: usize = 3;

/// Calls the store once for each use of connections: pipelined statements, a scan, a purge and a transaction.
fn calls(store: &PostgresStore) -> Vec<BoxFuture<'_, Result<()>>> {
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

/// Asserts that all calls fail quickly, both a few and many concurrent calls.
async fn assert_unavailable(store: &PostgresStore) {
    for rounds in [1, 20] {
        let calls: Vec<_> = (0..rounds).flat_map(|_| calls(store)).collect();
        for result in join_all(calls.into_iter().map(|call| timeout(FAILURE_LIMIT, call))).await {
            assert!(
                matches!(result, Ok(Err(StoreError::Unavailable(_)))),
                "{result:?}"
            );
        }
    }
}

/// Waits until one round of calls succeeds, then asserts that many concurrent calls do.
async fn assert_recovers(store: &PostgresStore) {
    let start = Instant::now();
    loop {
        let results = join_all(calls(store)).await;
        if results.iter().all(Result::is_ok) {
            break;
        }
        assert!(
            results
                .iter()
                .all(|result| matches!(result, Ok(()) | Err(StoreError::Unavailable(_)))),
            "{results:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(20), "{results:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for result in join_all((0..10).flat_map(|_| calls(store))).await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_quickly_while_the_server_is_stopped_and_succeed_after_its_restart() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    let store = connect(&server.url());
    assert_recovers(&store).await;
    for _ in 0..2 {
        server.stop();
        assert_unavailable(&store).await;
        server.resume();
        assert_recovers(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_can_be_created_before_its_server_is_up() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    server.stop();
    let store = connect(&server.url());
    assert_unavailable(&store).await;
    server.resume();
    assert_recovers(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_quickly_while_the_server_stalls_and_succeed_when_it_resumes() {
    let database = Database::migrated().await;
    let proxy = Proxy::in_front_of(&database.url).await;
    let store = connect(&proxy.url(&database.url));
    assert_recovers(&store).await;
    proxy.stall();
    assert_unavailable(&store).await;
    proxy.resume();
    assert_recovers(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_quickly_when_new_connections_stall() {
    let database = Database::migrated().await;
    let proxy = Proxy::in_front_of(&database.url).await;
    proxy.stall();
    let store = connect(&proxy.url(&database.url));
    assert_unavailable(&store).await;
    proxy.resume();
    assert_recovers(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_connections_are_replaced() {
    /// Two for reads by key, and one each for lists, searches, writes and maintenance.
    const OPEN: i64 = 6;
    let database = Database::migrated().await;
    let admin = database.client().await;
    let mut config = database.config();
    config.sizes.lists = 1;
    config.sizes.writes = 1;
    config.sizes.maintenance = 1;
    for _ in 0..4 {
        let store = PostgresStore::connect(&config).unwrap();
        // Opens all connections of the shares that are used.
        for result in join_all(calls(&store)).await {
            result.unwrap();
        }
        wait_for_connections(&admin, OPEN).await;
        let terminated = admin
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(terminated.len(), usize::try_from(OPEN).unwrap());
        // The store retries reads; a write, which may have been executed, fails at most once.
        for call in 0..calls(&store).len() {
            let allowed = if call < READS { 0 } else { 1 };
            let mut failures = Vec::new();
            loop {
                match calls(&store).swap_remove(call).await {
                    Ok(()) => break,
                    Err(StoreError::Unavailable(reason)) => failures.push(reason),
                    Err(error) => panic!("{error}"),
                }
                assert!(failures.len() <= allowed, "call {call}: {failures:?}");
            }
        }
        drop(store);
        wait_for_connections(&admin, 0).await;
    }
}

/// Waits until exactly `connections` connections besides `admin` are open, and all are set up and idle.
async fn wait_for_connections(admin: &Client, connections: i64) {
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
async fn a_statement_that_waits_for_a_lock_times_out_without_blocking_others() {
    let database = Database::migrated().await;
    let store = database.store();
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let mut other = database.client().await;
    let held = other.transaction().await.unwrap();
    held.batch_execute("SELECT FROM users FOR UPDATE").await.unwrap();

    let (old, new) = (PasswordHash("hash".to_owned()), PasswordHash("new".to_owned()));
    let blocked = timeout(FAILURE_LIMIT, store.upgrade_password_hash(user.id, &old, &new)).await;
    assert!(
        matches!(blocked, Ok(Err(StoreError::Unavailable(_)))),
        "{blocked:?}"
    );
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
async fn a_cancelled_call_leaves_no_transaction_open() {
    let database = Database::migrated().await;
    let store = database.store();
    let mut other = database.client().await;
    store.insert_user(new_user("first@example.com")).await.unwrap();
    let held = other.transaction().await.unwrap();
    held.batch_execute("LOCK TABLE users IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let cancelled = tokio::time::timeout(
        Duration::from_millis(200),
        store.insert_user(new_user("ann@example.com")),
    );
    assert!(cancelled.await.is_err(), "the call waits for the lock");
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
        assert!(start.elapsed() < FAILURE_LIMIT);
    }
    store.insert_user(new_user("bob@example.com")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_store_closes_its_connections() {
    let database = Database::migrated().await;
    let store = database.store();
    for result in join_all(calls(&store)).await {
        result.unwrap();
    }
    drop(store);
    wait_for_connections(&database.client().await, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_set_their_application_name() {
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
