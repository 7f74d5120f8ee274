//! Fail-overs, URLs with several hosts, read-only servers, and slow networks.

use std::time::{Duration, Instant};

use pressroom::store::{
    AccountStore, ArticleStore, HealthStore, StoreError,
    postgres::{PostgresConfig, PostgresStore, migrate},
};

use super::fixture::{at, new_article, new_user, task};
use crate::support::{
    eventually,
    postgres::{self, Database},
    postgres_proxy::Proxy,
    postgres_server::Server,
};

fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(&PostgresConfig::parse(url).unwrap()).unwrap()
}

/// Returns a URL with the addresses of both servers, in this order.
fn both(first: &Server, second: &Server) -> String {
    let [first, second] = [first, second].map(|server| {
        let url = url::Url::parse(&server.url()).unwrap();
        format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
    });
    format!("postgresql://postgres@{first},{second}/postgres")
}

/// Waits until a registration succeeds, and asserts that all further ones do.
async fn assert_writes(store: &PostgresStore, name: &str) {
    let mut attempt = 0;
    eventually("a registration", async || {
        attempt += 1;
        let result = store
            .insert_user(new_user(&format!("{name}{attempt}@example.com")))
            .await;
        assert!(
            matches!(result, Ok(_) | Err(StoreError::Unavailable(_))),
            "{result:?}"
        );
        result.ok()
    })
    .await;
    for number in 0..12 {
        let email = format!("{name}-{number}@example.com");
        store.insert_user(new_user(&email)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_uses_the_primary_of_several_hosts_even_after_a_fail_over() {
    let old = Server::start();
    migrate(&PostgresConfig::parse(&old.url()).unwrap())
        .await
        .unwrap();
    let new = old.replica();
    let store = connect(&both(&new, &old));
    assert_writes(&store, "before").await;

    old.stop();
    let promoted = postgres::client(&new.url()).await;
    promoted.batch_execute("SELECT pg_promote()").await.unwrap();
    assert_writes(&store, "promoted").await;

    // The old primary returns as a standby, listed first, and the new one restarts.
    drop(store);
    let store = connect(&both(&old, &new));
    old.resume_as_standby_of(&new);
    assert_writes(&store, "standby").await;
    new.stop();
    new.resume();
    let back = Instant::now();
    assert_writes(&store, "restarted").await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_read_only_server_are_replaced() {
    let primary = Server::start();
    migrate(&PostgresConfig::parse(&primary.url()).unwrap())
        .await
        .unwrap();
    let standby = primary.replica();
    // The host name still resolves to the standby.
    let proxy = Proxy::in_front_of(&standby.url()).await;
    let store = connect(&proxy.url(&standby.url()));
    let rejected = store.insert_user(new_user("ann@example.com")).await;
    assert!(
        matches!(&rejected, Err(StoreError::Unavailable(reason)) if reason.contains("25006")),
        "{rejected:?}"
    );
    // The reads have a connection to the standby as well.
    let watcher = postgres::client(&standby.url()).await;
    store.ping().await.unwrap();

    proxy.redirect(&primary.url());
    let moved = Instant::now();
    assert_writes(&store, "moved").await;
    assert!(moved.elapsed() < Duration::from_secs(5), "{:?}", moved.elapsed());
    eventually("all connections to leave the standby", async || {
        store.ping().await.unwrap();
        let remaining = "SELECT FROM pg_stat_activity WHERE application_name = 'pressroom'";
        let remaining = watcher.query(remaining, &[]).await.unwrap();
        remaining.is_empty().then_some(())
    })
    .await;
    let author = store.insert_user(new_user("bob@example.com")).await.unwrap();
    store
        .insert_article(new_article("own", author.id, at(1)), task(1, at(1)))
        .await
        .unwrap();
    for _ in 0..20 {
        store.find_article("own", Some(author.id)).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_continue_while_the_server_is_read_only_and_writes_return_afterwards() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    let store = connect(&server.url());
    store.insert_user(new_user("ann@example.com")).await.unwrap();
    let admin = postgres::client(&server.url()).await;
    let read_only = async |value: &str| {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        admin.batch_execute(&set).await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    read_only("on").await;
    let mut attempt = 0;
    eventually("writes to be rejected", async || {
        attempt += 1;
        let result = store
            .insert_user(new_user(&format!("a{attempt}@example.com")))
            .await;
        matches!(result, Err(StoreError::Unavailable(_))).then_some(())
    })
    .await;
    for _ in 0..50 {
        assert!(store.insert_user(new_user("bob@example.com")).await.is_err());
        assert!(store.find_article("missing", None).await.unwrap().is_none());
    }
    read_only("off").await;
    assert_writes(&store, "back").await;
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_write_is_reported() {
    let server = Server::start();
    migrate(&PostgresConfig::parse(&server.url()).unwrap())
        .await
        .unwrap();
    let admin = postgres::client(&server.url()).await;
    let set_up = "CREATE ROLE app LOGIN PASSWORD 'app';
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app";
    admin.batch_execute(set_up).await.unwrap();
    let url = server.url();
    let (_, server) = url.split_once('@').unwrap();
    let store = connect(&format!("postgresql://app:app@{server}"));
    assert_writes(&store, "granted").await;
    assert_eq!(store.state().await.unwrap().problem(), None);
    for change in [
        "REVOKE INSERT ON articles FROM app",
        "GRANT INSERT ON articles TO app; ALTER TABLE outbox RENAME TO elsewhere",
    ] {
        admin.batch_execute(change).await.unwrap();
        let problem = store.state().await.unwrap().problem().unwrap();
        assert!(problem.contains("may not write to every table"), "{problem}");
    }
    admin
        .batch_execute("ALTER TABLE elsewhere RENAME TO outbox")
        .await
        .unwrap();
    assert_eq!(store.state().await.unwrap().problem(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_trip_of_400_milliseconds_is_fast_enough() {
    let database = Database::empty().await;
    let proxy = Proxy::delaying(&database.url, Duration::from_millis(200)).await;
    let url = proxy.url(&database.url);
    migrate(&PostgresConfig::parse(&url).unwrap()).await.unwrap();
    let store = connect(&url);
    eventually("a response", async || store.ping().await.ok()).await;
    eventually("a registration", async || {
        store.insert_user(new_user("ann@example.com")).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_timeout_limits_the_wait_for_a_silent_server() {
    let database = Database::empty().await;
    let proxy = Proxy::in_front_of(&database.url).await;
    proxy.stall();
    let url = format!("{}?connect_timeout=2", proxy.url(&database.url));
    let start = Instant::now();
    let error = migrate(&PostgresConfig::parse(&url).unwrap()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(reason) if reason.contains("connect_timeout")));
    let elapsed = start.elapsed();
    assert!((2.0..4.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
}
