//! The stored number of articles: on PostgreSQL, also with writers that do not use the store, and on SQLite.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;
use pressroom::{
    domain::{ListQuery, Precondition},
    store::{AccountStore, ArticleStore, postgres::migrate},
};
use tokio_postgres::Client;

use super::{
    fixture::{at, new_article, new_user, task},
    migrations::FLASK_SCHEMA,
};
use crate::support::{eventually, postgres::Database, sqlite};

/// Reads the sum of the changes and the number of articles from one snapshot.
const COUNTS: &str = "SELECT
    (SELECT COALESCE(sum(change), 0)::bigint FROM article_count_changes),
    (SELECT count(*) FROM articles)";

const INSERT_USER: &str = "
    INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
    VALUES ('flask@example.com', 'hash', 'Flask', '', '', now(), now())";

/// Returns a statement that inserts `count` articles of user 1, as Flask does.
fn insert(prefix: &str, count: i64) -> String {
    format!(
        "INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
        SELECT '{prefix}-' || n, 'Title', '', 'body', 1, 0, now(), now() FROM generate_series(1, {count}) AS n"
    )
}

async fn counts(client: &Client) -> (i64, i64) {
    let row = client.query_one(COUNTS, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn database() -> (Database, Client) {
    let database = Database::migrated().await;
    let client = database.client().await;
    client.batch_execute(INSERT_USER).await.unwrap();
    (database, client)
}

async fn total(store: &impl ArticleStore) -> i64 {
    store.list_articles(ListQuery::default()).await.unwrap().total
}

/// Inserts and deletes articles in transactions, a third of which roll back.
async fn write(client: Client, name: String, rounds: usize) {
    for round in 0..rounds {
        let end = if round % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
        let inserted = insert(&format!("{name}-{round}"), 3);
        let undone = insert(&format!("{name}-{round}-undone"), 2);
        client
            .batch_execute(&format!(
                "BEGIN;
                {inserted};
                SAVEPOINT before;
                {undone};
                ROLLBACK TO before;
                DELETE FROM articles WHERE slug LIKE '{name}-%-2';
                {end}"
            ))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_leave_an_exact_total() {
    let (database, client) = database().await;
    let store = Arc::new(database.store());
    let done = Arc::new(AtomicBool::new(false));
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let watching = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let mut snapshots = 0;
            while !done.load(Ordering::Relaxed) {
                store.fold_article_count(50).await.unwrap();
                let (kept, counted) = counts(&client).await;
                assert_eq!(kept, counted);
                snapshots += 1;
            }
            (client, snapshots)
        }
    });
    let flask = (0..6).map(async |number| write(database.client().await, format!("w{number}"), 40).await);
    let own = (0..4).map(async |number: i64| {
        for round in 0..20 {
            let article = new_article(&format!("own {number} {round}"), user.id, at(round));
            let article = store.insert_article(article, task(1, at(0))).await.unwrap();
            if round % 2 == 0 {
                let deleted = store.delete_article(article.id, Precondition::default()).await;
                assert!(deleted.unwrap());
            }
        }
    });
    tokio::join!(join_all(flask), join_all(own));
    done.store(true, Ordering::Relaxed);
    let (client, snapshots) = watching.await.unwrap();
    assert!(snapshots > 10, "{snapshots}");
    // Of 40 transactions, 26 commit 3 articles, of which one is deleted. Of 20 articles of the store, 10 are left.
    let left = 6 * 26 * 2 + 4 * 10;
    assert_eq!(counts(&client).await, (left, left));
    assert_eq!(total(&*store).await, left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_articles_of_a_killed_writer_are_not_counted() {
    let (database, client) = database().await;
    client.batch_execute(&insert("kept", 3)).await.unwrap();
    let writer = database.client().await;
    writer
        .batch_execute(&format!("BEGIN; {}", insert("lost", 5)))
        .await
        .unwrap();
    let pid = writer.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
    let pid: i32 = pid.get(0);
    client
        .query("SELECT pg_terminate_backend($1)", &[&pid])
        .await
        .unwrap();
    eventually("the writer to end", async || {
        let running = "SELECT FROM pg_stat_activity WHERE pid = $1";
        let running = client.query(running, &[&pid]).await.unwrap();
        running.is_empty().then_some(())
    })
    .await;
    assert_eq!(counts(&client).await, (3, 3));
    assert_eq!(total(&database.store()).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_do_not_wait_for_each_other_or_for_folding() {
    let (database, client) = database().await;
    let store = database.store();
    for number in 0..101 {
        client
            .batch_execute(&insert(&format!("a{number}"), 1))
            .await
            .unwrap();
    }
    let mut open = database.client().await;
    let open = open.transaction().await.unwrap();
    open.batch_execute(&insert("open", 2)).await.unwrap();
    let held = "SELECT FROM article_count_changes ORDER BY id LIMIT 10 FOR UPDATE";
    assert_eq!(open.query(held, &[]).await.unwrap().len(), 10);

    client.batch_execute("SET lock_timeout TO '100ms'").await.unwrap();
    client.batch_execute(&insert("other", 1)).await.unwrap();
    assert!(store.fold_article_count(1_000).await.unwrap() >= 92);
    assert_eq!(total(&store).await, 102);
    open.commit().await.unwrap();
    assert_eq!(total(&store).await, 104);
    assert_eq!(counts(&client).await, (104, 104));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_are_folded_and_few_are_kept() {
    let (database, client) = database().await;
    let store = database.store();
    let changes = async || {
        let count = "SELECT count(*) FROM article_count_changes";
        client.query_one(count, &[]).await.unwrap().get::<_, i64>(0)
    };
    // The migration has inserted one change.
    for number in 0..99 {
        client
            .batch_execute(&insert(&format!("a{number}"), 1))
            .await
            .unwrap();
    }
    assert_eq!(changes().await, 100);
    assert_eq!(store.fold_article_count(1_000).await.unwrap(), 0);
    assert_eq!(changes().await, 100);
    client
        .batch_execute("DELETE FROM articles WHERE slug = 'a7-1'")
        .await
        .unwrap();
    assert_eq!(store.fold_article_count(60).await.unwrap(), 60);
    assert_eq!(changes().await, 42);
    assert_eq!(counts(&client).await, (98, 98));
}

#[tokio::test]
async fn articles_of_a_role_without_privileges_on_the_count_are_counted() {
    let (database, mut client) = database().await;
    // The transaction is rolled back, because roles exist in all databases of the server.
    let flask = client.transaction().await.unwrap();
    flask
        .batch_execute(&format!(
            "CREATE ROLE flask_of_one_test;
            GRANT SELECT, INSERT, UPDATE, DELETE ON users, articles, favorites TO flask_of_one_test;
            GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO flask_of_one_test;
            CREATE SCHEMA other AUTHORIZATION flask_of_one_test;
            SET LOCAL ROLE flask_of_one_test;
            CREATE TEMPORARY TABLE article_count_changes (change BIGINT);
            CREATE TABLE other.article_count_changes (change BIGINT);
            SET LOCAL search_path TO pg_temp, other, public;
            {};
            DELETE FROM articles WHERE slug = 'one-2';
            RESET ROLE",
            insert("one", 3)
        ))
        .await
        .unwrap();
    for (expression, expected) in [
        ("sum(change)::bigint FROM public.article_count_changes", 2),
        ("count(*) FROM pg_temp.article_count_changes", 0),
        ("count(*) FROM other.article_count_changes", 0),
        (
            "count(*) FROM pg_class
            WHERE oid = 'public.article_count_changes'::regclass
                AND has_table_privilege('flask_of_one_test', oid, 'SELECT, INSERT')",
            0,
        ),
    ] {
        let row = flask
            .query_one(&format!("SELECT {expression}"), &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), expected, "{expression}");
    }
    flask.rollback().await.unwrap();
    assert_eq!(total(&database.store()).await, 0);
}

#[tokio::test]
async fn truncation_conflicts_and_upserts_are_counted() {
    let (database, client) = database().await;
    let store = database.store();
    client.batch_execute(&insert("one", 3)).await.unwrap();
    client
        .batch_execute("BEGIN; TRUNCATE articles CASCADE; ROLLBACK")
        .await
        .unwrap();
    assert_eq!(counts(&client).await, (3, 3));
    client
        .batch_execute(&format!(
            "BEGIN; TRUNCATE articles CASCADE; {}; COMMIT",
            insert("two", 2)
        ))
        .await
        .unwrap();
    assert_eq!(counts(&client).await, (2, 2));
    let ignored = format!("{} ON CONFLICT DO NOTHING", insert("two", 4));
    client.batch_execute(&ignored).await.unwrap();
    let updated = format!(
        "{} ON CONFLICT (slug) DO UPDATE SET title = 'New'",
        insert("two", 5)
    );
    client.batch_execute(&updated).await.unwrap();
    client
        .batch_execute("DELETE FROM articles WHERE slug = 'missing'")
        .await
        .unwrap();
    assert_eq!(counts(&client).await, (5, 5));
    client.batch_execute(&insert("two", 6)).await.unwrap_err();
    assert_eq!(counts(&client).await, (5, 5));
    assert_eq!(total(&store).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn articles_written_before_and_during_the_migration_are_counted() {
    let database = Database::empty().await;
    let client = database.client().await;
    client.batch_execute(FLASK_SCHEMA).await.unwrap();
    client.batch_execute("SET search_path TO public").await.unwrap();
    client.batch_execute(INSERT_USER).await.unwrap();
    client.batch_execute(&insert("before", 1_000)).await.unwrap();
    let done = AtomicBool::new(false);
    let config = database.config();
    let writers = (0..3).map(async |number| {
        let client = database.client().await;
        let mut rounds = 0;
        while !done.load(Ordering::Relaxed) {
            client
                .batch_execute(&insert(&format!("w{number}-{rounds}"), 1))
                .await
                .unwrap();
            rounds += 1;
        }
        assert!(rounds > 10, "{rounds}");
    });
    let migrating = async {
        let applied = migrate(&config).await;
        done.store(true, Ordering::Relaxed);
        applied.unwrap();
    };
    tokio::join!(join_all(writers), migrating);
    let (kept, counted) = counts(&client).await;
    assert!(counted > 1_030, "{counted}");
    assert_eq!(kept, counted);
    assert_eq!(total(&database.store()).await, counted);
}

#[tokio::test]
async fn the_documented_statement_corrects_a_wrong_total() {
    let page = include_str!("../../../../../docs/databases.md");
    let (_, statement) = page.split_once("```sql").unwrap();
    let (statement, _) = statement.split_once("```").unwrap();
    let (database, client) = database().await;
    client
        .batch_execute("SET session_replication_role TO replica")
        .await
        .unwrap();
    client.batch_execute(&insert("loaded", 3)).await.unwrap();
    client
        .batch_execute("RESET session_replication_role")
        .await
        .unwrap();
    assert_eq!(counts(&client).await, (0, 3));
    for _ in 0..2 {
        client.batch_execute(statement).await.unwrap();
        assert_eq!(counts(&client).await, (3, 3));
    }
    assert_eq!(total(&database.store()).await, 3);
}

#[tokio::test]
async fn sqlite_counts_direct_writes_and_rollbacks() {
    let file = sqlite::File::new();
    let store = file.store();
    let client = rusqlite::Connection::open(file.path()).unwrap();
    let insert = "INSERT INTO articles
        WITH RECURSIVE n AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < 5)
        SELECT n, 's' || n, 'T', 't', '', 'b', 1, 0, n, n FROM n";
    store.insert_user(new_user("ann@example.com")).await.unwrap();
    client
        .execute_batch(&format!("BEGIN; {insert}; ROLLBACK"))
        .unwrap();
    assert_eq!(total(&store).await, 0);
    client.execute_batch(insert).unwrap();
    client.execute_batch("DELETE FROM articles WHERE id > 3").unwrap();
    assert_eq!(total(&store).await, 3);
    client.execute_batch("DELETE FROM articles").unwrap();
    assert_eq!(total(&store).await, 0);
}
