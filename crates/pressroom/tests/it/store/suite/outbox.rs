//! The outbox: claims, releases and deletions of tasks.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use pressroom::domain::Backlog;
use serde_json::json;
use uuid::Uuid;

use super::over_all_stores;
use crate::store::fixture::{Fixture, LEASE, at, new_article, task};

over_all_stores! {
    outbox_tasks_are_claimed_oldest_first_and_once
    a_task_with_an_expired_claim_is_claimed_again
    released_tasks_can_be_claimed_at_their_time
    a_late_release_keeps_the_claim_of_another_process
    all_claims_can_be_released_together
    finished_tasks_are_deleted
    concurrent_claims_never_overlap
}

async fn outbox_tasks_are_claimed_oldest_first_and_once(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    let mut expected = Vec::new();
    for n in 0..3 {
        let article = store
            .insert_article(new_article(&format!("No {n}"), ann, at(n)), task(n, at(n)))
            .await
            .unwrap();
        expected.push((Uuid::from_u128(n as u128), article.id));
    }
    assert_eq!(
        store.outbox_backlog().await.unwrap(),
        Backlog {
            tasks: 3,
            oldest: Some(at(0))
        }
    );
    let first = store.claim_outbox(at(10), LEASE, 2).await.unwrap();
    let second = store.claim_outbox(at(10), LEASE, 2).await.unwrap();
    assert_eq!((first.len(), second.len()), (2, 1));
    for (task, (task_id, article)) in first.iter().chain(&second).zip(&expected) {
        assert_eq!(task.task_id, *task_id);
        assert_eq!(task.name, "app.jobs.tasks.send_article_notification");
        assert_eq!(task.args, vec![json!(article.0), json!("created")]);
        assert_eq!(
            task.trace,
            [
                ("traceparent".to_owned(), "00-aa-bb-01".to_owned()),
                ("baggage".to_owned(), "k=\"v\"".to_owned())
            ]
        );
        assert_eq!(task.attempts, 1);
    }
    assert_eq!(second[0].created_at, at(2));
    assert!(store.claim_outbox(at(10), LEASE, 2).await.unwrap().is_empty());
    // Claimed tasks stay in the outbox.
    assert_eq!(store.outbox_backlog().await.unwrap().tasks, 3);
}

async fn a_task_with_an_expired_claim_is_claimed_again(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    fixture.article("One", ann, at(0)).await;
    assert_eq!(store.claim_outbox(at(10), LEASE, 9).await.unwrap().len(), 1);
    assert!(store.claim_outbox(at(69), LEASE, 9).await.unwrap().is_empty());
    let again = store.claim_outbox(at(70), LEASE, 9).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].attempts, 2);
}

async fn released_tasks_can_be_claimed_at_their_time(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    fixture.article("One", ann, at(0)).await;
    fixture.article("Two", ann, at(0)).await;
    let claimed = store.claim_outbox(at(10), LEASE, 9).await.unwrap();
    store
        .release_outbox(&[claimed[1].id], at(70), at(12))
        .await
        .unwrap();
    assert!(store.claim_outbox(at(11), LEASE, 9).await.unwrap().is_empty());
    let again = store.claim_outbox(at(12), LEASE, 9).await.unwrap();
    assert_eq!(
        again.iter().map(|task| task.id).collect::<Vec<_>>(),
        [claimed[1].id]
    );
}

async fn a_late_release_keeps_the_claim_of_another_process(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    fixture.article("One", ann, at(0)).await;
    let claimed = store.claim_outbox(at(10), LEASE, 9).await.unwrap();
    assert_eq!(store.claim_outbox(at(75), LEASE, 9).await.unwrap().len(), 1);
    store
        .release_outbox(&[claimed[0].id], at(70), at(76))
        .await
        .unwrap();
    assert!(store.claim_outbox(at(134), LEASE, 9).await.unwrap().is_empty());
    store
        .release_outbox(&[claimed[0].id], at(135), at(76))
        .await
        .unwrap();
    assert_eq!(store.claim_outbox(at(76), LEASE, 9).await.unwrap().len(), 1);
}

async fn all_claims_can_be_released_together(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    for n in 0..3 {
        fixture.article(&format!("No {n}"), ann, at(0)).await;
    }
    store.claim_outbox(at(10), LEASE, 2).await.unwrap();
    assert_eq!(store.release_all_outbox().await.unwrap(), 2);
    assert_eq!(store.claim_outbox(at(10), LEASE, 9).await.unwrap().len(), 3);
}

async fn finished_tasks_are_deleted(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    for n in 0..3 {
        fixture.article(&format!("No {n}"), ann, at(n)).await;
    }
    let claimed = store.claim_outbox(at(10), LEASE, 2).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|task| task.id).collect();
    for _ in 0..2 {
        store.delete_outbox(&ids).await.unwrap();
    }
    assert_eq!(
        store.outbox_backlog().await.unwrap(),
        Backlog {
            tasks: 1,
            oldest: Some(at(2))
        }
    );
}

async fn concurrent_claims_never_overlap(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    for n in 0..60 {
        fixture.article(&format!("No {n}"), ann, at(0)).await;
    }
    let claims = join_all((0..12).map(|_| store.claim_outbox(at(10), LEASE, 10))).await;
    let claimed: Vec<_> = claims.into_iter().flat_map(Result::unwrap).collect();
    let distinct: BTreeSet<_> = claimed.iter().map(|task| task.id).collect();
    assert_eq!(distinct.len(), claimed.len(), "a task was claimed twice");
    // Rows skipped because another claimer had locked them can be claimed later.
    let rest = store.claim_outbox(at(10), LEASE, 100).await.unwrap();
    assert_eq!(claimed.len() + rest.len(), 60);
}
