//! Plans of PostgreSQL for tables that have grown since their statistics were collected and plans were prepared.

use pressroom::{
    domain::PublishedBatch,
    store::{AccountStore as _, ArticleStore as _, OutboxStore as _, PublishedTaskStore as _},
};
use tokio_postgres::Client;
use uuid::Uuid;

use super::fixture::{LEASE, at, new_article, new_user, task};
use crate::support::postgres::{Database, until_stores_are_closed};

/// Rows added to each table.
const ROWS: i64 = 20_000;

/// Number of runs of a statement on an empty table, after which PostgreSQL no longer plans it for each execution.
const RUNS: i64 = 12;

/// Returns the number of rows read by sequential scans.
async fn scanned(client: &Client) -> i64 {
    let sum = "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables
        WHERE relname IN ('outbox', 'published_tasks', 'articles', 'users', 'favorites')";
    client.query_one(sum, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn statements_by_key_do_not_scan_tables_that_grew_quickly() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let store = database.store();
    let ann = store.insert_user(new_user("ann@example.com")).await.unwrap().id;
    let mut clock = 0;
    let mut dispatch = async |limit| {
        clock += 1;
        let claimed = store.claim_outbox(at(clock), LEASE, limit).await.unwrap();
        let ids: Vec<i64> = claimed.iter().map(|task| task.id).collect();
        let batch = PublishedBatch {
            log: Uuid::from_u128(1),
            number: clock,
        };
        store.record_published(&ids, batch, at(clock)).await.unwrap();
        let published = store.published_tasks(0, 256).await.unwrap();
        let (first, rest) = published.split_at(published.len().min(1));
        store.republish(first, at(clock)).await.unwrap();
        store.delete_published(rest).await.unwrap();
        ids.len()
    };
    let article = new_article("No 0", ann, at(0));
    store.insert_article(article, task(0, at(0))).await.unwrap();
    // The statistics say that the outbox is empty, and the statements are planned accordingly.
    for statement in [
        "DELETE FROM outbox",
        "ALTER TABLE outbox SET (autovacuum_enabled = off)",
        "ALTER TABLE articles SET (autovacuum_enabled = off)",
        "VACUUM ANALYZE",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    for n in 0..RUNS {
        assert_eq!(dispatch(256).await, 0);
        store.find_article("no-0", Some(ann)).await.unwrap();
        store.favorite("no-0", ann, at(n)).await.unwrap();
    }
    let grow = format!(
        "INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
        SELECT gen_random_uuid(), 'name', '[1]', '{{}}', '2020-01-01', '2020-01-01' FROM generate_series(1, {ROWS});
        INSERT INTO articles (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
        SELECT 'more-' || n, 'More', '', '', 1, 0, now(), now() FROM generate_series(1, {ROWS}) AS n"
    );
    client.batch_execute(&grow).await.unwrap();
    let before = scanned(&client).await;
    for n in 0..RUNS {
        assert_eq!(dispatch(256).await, 256);
        let slug = format!("more-{}", n + 1);
        store.find_article(&slug, Some(ann)).await.unwrap();
        store.favorite(&slug, ann, at(n)).await.unwrap();
    }
    drop(store);
    until_stores_are_closed(&client).await;
    let scanned = scanned(&client).await - before;
    assert!(scanned < ROWS, "{scanned} rows were read by sequential scans");
}
