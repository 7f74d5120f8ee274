//! The record of published tasks, which only PostgreSQL has.

use pressroom::{
    domain::{PublishedBatch, PublishedTask},
    store::{
        AccountStore as _, ArticleStore as _, OutboxStore as _, PublishedTaskStore as _,
        postgres::PostgresStore,
    },
};
use uuid::Uuid;

use super::fixture::{LEASE, at, new_article, new_user, task};
use crate::support::postgres::Database;

const BATCH: PublishedBatch = PublishedBatch {
    log: Uuid::from_u128(7),
    number: 3,
};

/// Returns a store with the tasks 0, 1 and 2, which are claimed, and the ids of their rows.
async fn three_claimed(database: &Database) -> (PostgresStore, Vec<i64>) {
    let store = database.store();
    let ann = store.insert_user(new_user("ann@example.com")).await.unwrap().id;
    for n in 0..3 {
        let article = new_article(&format!("No {n}"), ann, at(n));
        store.insert_article(article, task(n, at(n))).await.unwrap();
    }
    let claimed = store.claim_outbox(at(10), LEASE, 9).await.unwrap();
    (store, claimed.iter().map(|task| task.id).collect())
}

#[tokio::test]
async fn published_tasks_leave_the_outbox_and_are_recorded() {
    let database = Database::migrated().await;
    let (store, ids) = three_claimed(&database).await;
    store.record_published(&ids[..2], BATCH, at(11)).await.unwrap();
    assert_eq!(store.outbox_backlog().await.unwrap().tasks, 1);
    let recorded = |n: usize| PublishedTask {
        id: ids[n],
        task_id: Uuid::from_u128(n as u128),
        batch: BATCH,
        sends: 1,
        published_at: at(11),
    };
    assert_eq!(
        store.published_tasks(0, 9).await.unwrap(),
        [recorded(0), recorded(1)]
    );
    assert_eq!(store.published_tasks(0, 1).await.unwrap(), [recorded(0)]);
    assert_eq!(store.published_tasks(ids[0], 9).await.unwrap(), [recorded(1)]);

    // A task that another process has already recorded is not recorded again.
    store.record_published(&ids[..1], BATCH, at(12)).await.unwrap();
    assert_eq!(store.published_tasks(0, 1).await.unwrap(), [recorded(0)]);

    store.delete_published(&[recorded(0)]).await.unwrap();
    assert_eq!(store.published_tasks(0, 9).await.unwrap(), [recorded(1)]);
}

#[tokio::test]
async fn lost_tasks_return_to_the_outbox_once_with_their_ids_and_arguments() {
    let database = Database::migrated().await;
    let (store, ids) = three_claimed(&database).await;
    store.record_published(&ids, BATCH, at(11)).await.unwrap();
    let lost = store.published_tasks(0, 2).await.unwrap();
    assert_eq!(store.republish(&lost, at(20)).await.unwrap(), 2);
    assert_eq!(store.republish(&lost, at(20)).await.unwrap(), 0);
    assert_eq!(store.published_tasks(0, 9).await.unwrap().len(), 1);

    assert!(store.claim_outbox(at(19), LEASE, 9).await.unwrap().is_empty());
    let again = store.claim_outbox(at(20), LEASE, 9).await.unwrap();
    assert_eq!(
        again.iter().map(|task| task.id).collect::<Vec<_>>(),
        ids[..2],
        "the oldest first"
    );
    assert_eq!(again[1].task_id, Uuid::from_u128(1));
    assert_eq!(again[1].args[1], "created");
    assert_eq!(again[1].trace.len(), 2);
    assert_eq!(again[1].created_at, at(1));

    store.record_published(&ids[..2], BATCH, at(21)).await.unwrap();
    assert_eq!(store.published_tasks(0, 1).await.unwrap()[0].sends, 2);
}

/// Two processes have read the record, and the second one acts on it after the dispatcher has published again the tasks
/// that the first one moved back.
#[tokio::test]
async fn a_task_that_was_published_again_is_neither_republished_nor_deleted_because_of_its_old_batch() {
    let database = Database::migrated().await;
    let (store, ids) = three_claimed(&database).await;
    store.record_published(&ids, BATCH, at(11)).await.unwrap();
    let read = store.published_tasks(0, 9).await.unwrap();
    assert_eq!(store.republish(&read[..2], at(20)).await.unwrap(), 2);
    store.claim_outbox(at(20), LEASE, 9).await.unwrap();
    let new = PublishedBatch {
        log: Uuid::from_u128(8),
        number: 1,
    };
    store.record_published(&ids[..2], new, at(21)).await.unwrap();

    store.delete_published(&read[..1]).await.unwrap();
    assert_eq!(store.republish(&read, at(22)).await.unwrap(), 1, "the third task");
    let recorded = store.published_tasks(0, 9).await.unwrap();
    assert_eq!(recorded.iter().map(|task| task.id).collect::<Vec<_>>(), ids[..2]);
    assert!(recorded.iter().all(|task| task.batch == new && task.sends == 2));
}
