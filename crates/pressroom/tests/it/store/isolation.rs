//! Statements that wait for locks or take long do not delay others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pressroom::{
    domain::{ListQuery, Precondition, TokenKey, User},
    store::{
        AccountStore, ArticleStore, HealthStore, StoreError,
        postgres::{PostgresConfig, PostgresStore},
    },
};
use tokio::task::{JoinError, JoinSet};
use tokio_postgres::Client;

use super::fixture::{at, new_article, new_user, task};
use crate::support::{eventually, pgbouncer::PgBouncer, postgres::Database};

/// Maximum time of a call that needs no lock, far below the time-outs of calls that wait for one.
const UNAFFECTED: Duration = Duration::from_millis(500);
/// Maximum time until a call that waits for a lock fails.
const FAILURE_LIMIT: Duration = Duration::from_secs(2);

/// A store with the articles `locked` and `free`, and its database.
struct Setting {
    store: Arc<PostgresStore>,
    author: User,
    database: Database,
}

impl Setting {
    async fn new() -> Self {
        let database = Database::migrated().await;
        let store = Arc::new(database.store());
        Self::with(database, store).await
    }

    async fn with(database: Database, store: Arc<PostgresStore>) -> Self {
        let author = store.insert_user(new_user("ann@example.com")).await.unwrap();
        for title in ["locked", "free"] {
            let article = new_article(title, author.id, at(1));
            store.insert_article(article, task(1, at(1))).await.unwrap();
        }
        Self {
            store,
            author,
            database,
        }
    }

    /// Starts `count` callers that repeatedly favourite the locked article.
    fn favourite_locked(&self, count: usize) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for _ in 0..count {
            let (store, user) = (Arc::clone(&self.store), self.author.id);
            callers.spawn(async move {
                loop {
                    let start = Instant::now();
                    let result = store.favorite("locked", user, at(2)).await;
                    assert_locked(result, start);
                }
            });
        }
        callers
    }

    /// Asserts that reads by key, the readiness check and lists take their usual time.
    async fn assert_reads_are_unaffected(&self) {
        for _ in 0..100 {
            let start = Instant::now();
            self.store.find_article("free", None).await.unwrap().unwrap();
            let token = TokenKey("key".to_owned());
            self.store
                .find_session(self.author.id, &token)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(self.store.state().await.unwrap().problem(), None);
            self.store.list_articles(list(None)).await.unwrap();
            assert!(start.elapsed() < UNAFFECTED, "{:?}", start.elapsed());
        }
    }
}

fn list(search: Option<&str>) -> ListQuery {
    ListQuery {
        limit: 20,
        search: search.map(str::to_owned),
        ..ListQuery::default()
    }
}

/// Asserts that a call failed in time because of a lock.
fn assert_locked<T: std::fmt::Debug>(result: Result<T, StoreError>, start: Instant) {
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(start.elapsed() < FAILURE_LIMIT, "{:?}", start.elapsed());
}

/// Asserts that no caller has panicked.
fn assert_running(callers: &mut JoinSet<()>) {
    assert!(
        callers.try_join_next().is_none(),
        "a caller failed in an unexpected way"
    );
}

/// Waits until statements of the store wait for locks.
async fn wait_for_waiting(admin: &Client) {
    eventually("statements that wait for a lock", async || {
        let waiting = "SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting = admin.query(waiting, &[]).await.unwrap();
        (!waiting.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_a_locked_row_do_not_delay_other_statements() {
    let setting = Setting::new().await;
    writers_of_a_locked_row_do_not_delay_other_statements_on(setting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_a_locked_row_do_not_delay_other_statements_behind_a_pooler() {
    let database = Database::migrated().await;
    let pooler = PgBouncer::with_connections(&database.url, 20);
    let config = PostgresConfig::parse(&pooler.url(&database.url)).unwrap();
    let store = Arc::new(PostgresStore::connect(&config).unwrap());
    let setting = Setting::with(database, store).await;
    writers_of_a_locked_row_do_not_delay_other_statements_on(setting).await;
}

async fn writers_of_a_locked_row_do_not_delay_other_statements_on(setting: Setting) {
    let admin = setting.database.client().await;
    let mut other = setting.database.client().await;
    let held = other.transaction().await.unwrap();
    held.batch_execute("UPDATE articles SET title = title WHERE slug = 'locked'")
        .await
        .unwrap();
    let mut callers = setting.favourite_locked(16);
    wait_for_waiting(&admin).await;

    setting.assert_reads_are_unaffected().await;
    for number in 0..20 {
        let start = Instant::now();
        let user = setting.author.id;
        setting
            .store
            .favorite("free", user, at(2))
            .await
            .unwrap()
            .unwrap();
        setting.store.unfavorite("free", user).await.unwrap().unwrap();
        let email = format!("reader{number}@example.com");
        setting.store.insert_user(new_user(&email)).await.unwrap();
        assert!(start.elapsed() < 2 * UNAFFECTED, "{:?}", start.elapsed());
    }
    assert_running(&mut callers);

    callers.abort_all();
    while callers.join_next().await.is_some() {}
    held.rollback().await.unwrap();
    let user = setting.author.id;
    let favourited = setting
        .store
        .favorite("locked", user, at(3))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(favourited.favorites_count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_many_locked_rows_do_not_delay_writers_of_other_rows() {
    const LOCKED: u32 = 24;
    let setting = Setting::new().await;
    let (store, user) = (&setting.store, setting.author.id);
    for number in 0..LOCKED {
        let article = new_article(&format!("held-{number}"), user, at(1));
        store.insert_article(article, task(1, at(1))).await.unwrap();
    }
    let mut other = setting.database.client().await;
    let held = other.transaction().await.unwrap();
    held.batch_execute("SELECT FROM articles WHERE slug LIKE 'held-%' FOR UPDATE")
        .await
        .unwrap();
    let mut callers = JoinSet::new();
    for number in 0..LOCKED {
        let store = Arc::clone(store);
        callers.spawn(async move {
            loop {
                let result = store.favorite(&format!("held-{number}"), user, at(2)).await;
                assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
                // As clients do after 503.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    // The locks are known after this time.
    tokio::time::sleep(FAILURE_LIMIT).await;
    for _ in 0..20 {
        let start = Instant::now();
        store.favorite("free", user, at(2)).await.unwrap().unwrap();
        store.unfavorite("free", user).await.unwrap().unwrap();
        assert!(start.elapsed() < 2 * UNAFFECTED, "{:?}", start.elapsed());
    }
    assert!(
        callers.try_join_next().is_none(),
        "a caller failed in an unexpected way"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_a_locked_table_delay_neither_reads_nor_writers_of_other_tables() {
    let setting = Setting::new().await;
    let admin = setting.database.client().await;
    let mut other = setting.database.client().await;
    let held = other.transaction().await.unwrap();
    // The lock that CREATE INDEX takes.
    held.batch_execute("LOCK TABLE articles IN SHARE MODE")
        .await
        .unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let (store, author) = (Arc::clone(&setting.store), setting.author.id);
        callers.spawn(async move {
            for number in 0.. {
                let start = Instant::now();
                let article = new_article(&format!("title {caller} {number}"), author, at(2));
                let result = store.insert_article(article, task(1, at(2))).await;
                assert_locked(result, start);
            }
        });
    }
    wait_for_waiting(&admin).await;

    setting.assert_reads_are_unaffected().await;
    for number in 0..20 {
        let start = Instant::now();
        let email = format!("reader{number}@example.com");
        setting.store.insert_user(new_user(&email)).await.unwrap();
        assert!(start.elapsed() < 2 * UNAFFECTED, "{:?}", start.elapsed());
    }
    assert_running(&mut callers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_an_exclusively_locked_table_do_not_delay_reads_of_others() {
    let setting = Setting::new().await;
    let admin = setting.database.client().await;
    let mut other = setting.database.client().await;
    let held = other.transaction().await.unwrap();
    // The lock that ALTER TABLE takes.
    held.batch_execute("LOCK TABLE articles").await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let store = Arc::clone(&setting.store);
        callers.spawn(async move {
            loop {
                let start = Instant::now();
                let result = store.find_article("free", None).await;
                assert_locked(result, start);
            }
        });
    }
    wait_for_waiting(&admin).await;
    let token = TokenKey("key".to_owned());
    for _ in 0..100 {
        let start = Instant::now();
        setting
            .store
            .find_session(setting.author.id, &token)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(setting.store.state().await.unwrap().problem(), None);
        assert!(start.elapsed() < UNAFFECTED, "{:?}", start.elapsed());
    }
    assert_running(&mut callers);
    callers.abort_all();
    while callers.join_next().await.is_some() {}
    held.rollback().await.unwrap();
    eventually("reads of the table", async || {
        setting.store.find_article("free", None).await.ok()?
    })
    .await;
}

/// Adds enough articles for a search to take a noticeable time.
async fn fill(database: &Database, author: &User) {
    let insert = "INSERT INTO articles
            (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
        SELECT 'slug-' || n, repeat('title ', 40) || n, '', 'x', $1, 0, now(), now()
        FROM generate_series(1, 60000) AS n";
    database
        .client()
        .await
        .execute(insert, &[&author.id.0])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn surplus_searches_fail_without_affecting_other_calls() {
    let setting = Setting::new().await;
    fill(&setting.database, &setting.author).await;
    let mut searchers = JoinSet::new();
    for _ in 0..192 {
        let store = Arc::clone(&setting.store);
        searchers.spawn(async move {
            for number in 0.. {
                match store.list_articles(list(Some(&format!("zz{number}")))).await {
                    Ok(page) => assert_eq!(page.total, 0),
                    Err(StoreError::Unavailable(_)) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    // There are more callers than connections and places in the queue.
    searchers.join_next().await.unwrap().unwrap();
    for number in 0..8 {
        let start = Instant::now();
        let email = format!("reader{number}@example.com");
        setting.store.insert_user(new_user(&email)).await.unwrap();
        let article = new_article(&format!("new {number}"), setting.author.id, at(5));
        let article = setting
            .store
            .insert_article(article, task(1, at(5)))
            .await
            .unwrap();
        assert!(
            setting
                .store
                .delete_article(article.id, Precondition::default())
                .await
                .unwrap()
        );
        setting.store.find_article("free", None).await.unwrap().unwrap();
        setting.store.list_articles(list(None)).await.unwrap();
        assert!(start.elapsed() < 4 * UNAFFECTED, "{:?}", start.elapsed());
    }
    // The remaining callers fit into the queue, and search until they are stopped.
    searchers.abort_all();
    while let Some(ended) = searchers.join_next().await {
        assert!(
            ended.as_ref().is_ok() || ended.as_ref().is_err_and(JoinError::is_cancelled),
            "{ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_searches_are_cancelled_and_do_not_add_up() {
    let setting = Setting::new().await;
    fill(&setting.database, &setting.author).await;
    let admin = setting.database.client().await;
    for _ in 0..20 {
        let searches = (0..4).map(|_| setting.store.list_articles(list(Some("zz"))));
        let abandoned = tokio::time::timeout(Duration::from_millis(10), join_all(searches));
        let _ = abandoned.await;
        let open = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE '%ILIKE%' AND pid <> pg_backend_pid()";
        let open: i64 = admin.query_one(open, &[]).await.unwrap().get(0);
        assert!(open <= 2, "{open} connections search");
    }
    eventually("a search after the abandoned ones", async || {
        setting.store.list_articles(list(Some("zz"))).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_is_not_delayed_by_requests_that_use_all_processors() {
    let setting = Setting::new().await;
    setting.store.state().await.unwrap();
    // The tasks take turns, so each waits about a second for the others.
    let mut busy = JoinSet::new();
    for _ in 0..400 {
        busy.spawn(async {
            loop {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(5) {
                    std::hint::spin_loop();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..2 {
        let store = Arc::clone(&setting.store);
        let check = async move { tokio::time::timeout(Duration::from_secs(1), store.state()).await };
        let state = tokio::spawn(check).await.unwrap();
        assert_eq!(state.expect("a check within its limit").unwrap().problem(), None);
    }
}

/// The connection of a large write would keep its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_write_leaves_no_connection_behind() {
    let setting = Setting::new().await;
    let admin = setting.database.client().await;
    let insert = async |title: &str, length: usize| {
        let mut article = new_article(title, setting.author.id, at(1));
        article.draft.body = "x".repeat(length);
        let inserted = setting.store.insert_article(article, task(1, at(1))).await;
        assert_eq!(inserted.unwrap().body.len(), length);
    };
    let writers = async || -> i64 {
        let writers = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE '%INSERT INTO articles%' AND pid <> pg_backend_pid()";
        admin.query_one(writers, &[]).await.unwrap().get(0)
    };
    insert("small", 1000).await;
    assert_eq!(writers().await, 1);
    insert("large", 1_000_000).await;
    eventually("the connection to be closed", async || {
        (writers().await == 0).then_some(())
    })
    .await;
    insert("another", 1000).await;
    assert_eq!(writers().await, 1);
}
