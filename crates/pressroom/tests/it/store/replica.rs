//! A streaming replica: which reads use it, and outages of the replica or the primary.

use std::time::{Duration, Instant};

use pressroom::{
    domain::ListQuery,
    store::{
        AccountStore, ArticleStore, StoreError,
        postgres::{PostgresConfig, PostgresStore, migrate},
    },
};
use tokio_postgres::Client;

use super::fixture::{at, new_article, new_user, task};
use crate::support::{eventually, postgres, postgres_proxy::Proxy, postgres_server::Server};

/// A migrated primary and its replica.
struct Pair {
    primary: Server,
    replica: Server,
}

impl Pair {
    async fn start() -> Self {
        let primary = Server::start();
        migrate(&config(&primary.url())).await.unwrap();
        let replica = primary.replica();
        Self { primary, replica }
    }

    /// Connects a store to both and waits until it reads from the replica.
    async fn store(&self) -> PostgresStore {
        let store = connect(&self.primary.url(), &self.replica.url());
        let reads = Reads::at(&self.replica).await;
        reads.wait_for(&store).await;
        store
    }

    /// Waits until the replica has everything written so far, then pauses its replay.
    async fn pause_replay(&self) -> Client {
        let primary = postgres::client(&self.primary.url()).await;
        let replica = postgres::client(&self.replica.url()).await;
        let row = primary
            .query_one("SELECT pg_current_wal_lsn()::text", &[])
            .await
            .unwrap();
        let written: String = row.get(0);
        eventually("the replica to catch up", async || {
            let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
            let row = replica.query_one(replayed, &[&written]).await.unwrap();
            row.get::<_, bool>(0).then_some(())
        })
        .await;
        replica
            .batch_execute("SELECT pg_wal_replay_pause()")
            .await
            .unwrap();
        eventually("replay to pause", async || {
            let row = replica
                .query_one("SELECT pg_get_wal_replay_pause_state()", &[])
                .await
                .unwrap();
            (row.get::<_, String>(0) == "paused").then_some(())
        })
        .await;
        replica
    }
}

/// Observes on a server whether reads of articles reach it.
struct Reads(Client);

impl Reads {
    async fn at(server: &Server) -> Self {
        Self(postgres::client(&server.url()).await)
    }

    /// Waits until anonymous reads of `store` reach this server.
    async fn wait_for(&self, store: &PostgresStore) {
        let now = "SELECT clock_timestamp()::text";
        let since: String = self.0.query_one(now, &[]).await.unwrap().get(0);
        eventually("reads to reach the server", async || {
            store.list_articles(list()).await.unwrap();
            let read = "SELECT FROM pg_stat_activity WHERE application_name = 'pressroom'
                AND query LIKE '%FROM articles%' AND query_start > $1::text::timestamptz";
            let read = self.0.query(read, &[&since]).await.unwrap();
            (!read.is_empty()).then_some(())
        })
        .await;
    }
}

fn config(url: &str) -> PostgresConfig {
    PostgresConfig::parse(url).unwrap()
}

fn connect(primary: &str, replica: &str) -> PostgresStore {
    PostgresStore::connect(&config(primary))
        .unwrap()
        .reading_from(&config(replica))
        .unwrap()
}

fn list() -> ListQuery {
    ListQuery {
        limit: 20,
        ..ListQuery::default()
    }
}

fn titles(page: &pressroom::domain::ArticlePage) -> Vec<&str> {
    page.articles
        .iter()
        .map(|article| article.title.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_reads_use_the_replica_and_users_see_their_own_writes() {
    let pair = Pair::start().await;
    let store = pair.store().await;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let old = store
        .insert_article(new_article("old", user.id, at(1)), task(1, at(1)))
        .await
        .unwrap();
    let _paused = pair.pause_replay().await;

    store.favorite("old", user.id, at(2)).await.unwrap().unwrap();
    store
        .insert_article(new_article("new", user.id, at(3)), task(3, at(3)))
        .await
        .unwrap();

    // The author sees both writes immediately, by slug and in the list.
    let own = store.find_article("old", Some(user.id)).await.unwrap().unwrap();
    assert_eq!((own.favorites_count, own.favorited), (1, true));
    let query = ListQuery {
        viewer: Some(user.id),
        ..list()
    };
    assert_eq!(titles(&store.list_articles(query).await.unwrap()), ["new", "old"]);
    // Anonymous reads use the replica, which has neither.
    for _ in 0..4 {
        let replicated = store.find_article("old", None).await.unwrap().unwrap();
        assert_eq!(replicated.favorites_count, 0);
        assert_eq!(titles(&store.list_articles(list()).await.unwrap()), ["old"]);
    }
    // The store looks up a slug on the primary if the replica does not have it.
    let linked = store.find_article("new", None).await.unwrap().unwrap();
    assert_eq!(linked.title, "new");
    assert!(store.find_article("never", None).await.unwrap().is_none());
    // Reads by id, which tasks use, go to the primary.
    let by_id = store.find_article_by_id(old.id).await.unwrap().unwrap();
    assert_eq!(by_id.favorites_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_too_far_is_not_used_until_it_has_caught_up() {
    let pair = Pair::start().await;
    let store = pair.store().await;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let replica = pair.pause_replay().await;
    store
        .insert_article(new_article("first", user.id, at(1)), task(1, at(1)))
        .await
        .unwrap();
    assert!(store.list_articles(list()).await.unwrap().articles.is_empty());
    // The documented limit is half a minute.
    eventually("reads to go to the primary", async || {
        let page = store.list_articles(list()).await.unwrap();
        (!page.articles.is_empty()).then_some(())
    })
    .await;
    replica
        .batch_execute("SELECT pg_wal_replay_resume()")
        .await
        .unwrap();
    Reads::at(&pair.replica).await.wait_for(&store).await;
    assert_eq!(titles(&store.list_articles(list()).await.unwrap()), ["first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_use_the_primary_until_a_stopped_replica_is_back() {
    let pair = Pair::start().await;
    let store = pair.store().await;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    store
        .insert_article(new_article("first", user.id, at(1)), task(1, at(1)))
        .await
        .unwrap();
    pair.replica.stop();
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(3) {
        let start = Instant::now();
        store.find_article("first", None).await.unwrap().unwrap();
        assert_eq!(titles(&store.list_articles(list()).await.unwrap()), ["first"]);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    pair.replica.resume();
    Reads::at(&pair.replica).await.wait_for(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_replica_delays_reads_only_until_it_is_detected() {
    let pair = Pair::start().await;
    let proxy = Proxy::in_front_of(&pair.replica.url()).await;
    let store = connect(&pair.primary.url(), &proxy.url(&pair.replica.url()));
    let reads = Reads::at(&pair.replica).await;
    reads.wait_for(&store).await;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    store
        .insert_article(new_article("first", user.id, at(1)), task(1, at(1)))
        .await
        .unwrap();
    proxy.stall();
    // Until the check detects the stall, a read takes at most its time-out.
    let stalled = Instant::now();
    while stalled.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        store.find_article("first", None).await.unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    for _ in 0..100 {
        let start = Instant::now();
        store.find_article("first", None).await.unwrap().unwrap();
        store.list_articles(list()).await.unwrap();
        assert!(
            start.elapsed() < Duration::from_millis(400),
            "{:?}",
            start.elapsed()
        );
    }
    proxy.resume();
    reads.wait_for(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_reads_succeed_and_writes_fail_while_the_primary_is_stopped() {
    let pair = Pair::start().await;
    let store = pair.store().await;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    store
        .insert_article(new_article("first", user.id, at(1)), task(1, at(1)))
        .await
        .unwrap();
    drop(pair.pause_replay().await);
    pair.primary.stop();
    for _ in 0..3 {
        store.find_article("first", None).await.unwrap().unwrap();
        assert_eq!(titles(&store.list_articles(list()).await.unwrap()), ["first"]);
        let written = store.insert_user(new_user("bob@example.com")).await;
        assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
        let missing = store.find_article("missing", None).await;
        assert!(matches!(missing, Err(StoreError::Unavailable(_))), "{missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_the_schema_is_not_used() {
    let database = postgres::Database::migrated().await;
    let empty = postgres::Database::empty().await;
    let store = connect(&database.url, &empty.url);
    // The replica is checked twice in this time.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        store.list_articles(list()).await.unwrap();
    }
    let client = empty.client().await;
    let errors = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let row = client.query_one(errors, &[]).await.unwrap();
    assert!(row.get::<_, i64>(0) < 20, "{row:?}: reads reach the replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_url_may_name_the_primary() {
    let database = postgres::Database::migrated().await;
    let store = connect(&database.url, &database.url);
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    store
        .insert_article(new_article("first", user.id, at(1)), task(1, at(1)))
        .await
        .unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        assert_eq!(titles(&store.list_articles(list()).await.unwrap()), ["first"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_store_closes_its_connections_to_the_replica() {
    let pair = Pair::start().await;
    let store = pair.store().await;
    drop(store);
    let watcher = postgres::client(&pair.replica.url()).await;
    eventually("the connections to close", async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pressroom'";
        let row = watcher.query_one(open, &[]).await.unwrap();
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
}
