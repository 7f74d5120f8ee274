//! Deliveries of notifications, their recipients, and the limit of notified events.

use std::{num::NonZeroU32, time::Duration};

use futures_util::future::join_all;
use pressroom::domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, NotifiedEvent, UserId};
use uuid::Uuid;

use super::over_all_stores;
use crate::store::fixture::{Fixture, LEASE, at};

over_all_stores! {
    a_delivery_is_claimed_by_one_claimer
    a_completed_delivery_cannot_be_claimed
    an_abandoned_delivery_is_claimed_again
    deliveries_are_purged_by_age
    recipients_of_a_new_article_favorited_another_by_its_author
    recipients_of_an_update_favorited_the_article
    the_notified_events_of_an_author_are_limited
    concurrent_tasks_notify_of_one_edit
    a_task_whose_event_is_recorded_may_continue_after_newer_events
}

async fn the_notified_events_of_an_author_are_limited(fixture: Fixture) {
    let store = &fixture.store;
    let event = |task: u128, author: i32, article: i32, event: ArticleEvent| NotifiedEvent {
        task_id: Uuid::from_u128(task),
        author: UserId(author),
        article: ArticleId(article),
        event,
    };
    let limit = NonZeroU32::new(3);
    let claim = async |claimed: NotifiedEvent, second: i64, limit| {
        store.claim_event(&claimed, at(second), limit).await.unwrap()
    };
    let (created, updated) = (ArticleEvent::Created, ArticleEvent::Updated);
    assert!(claim(event(1, 1, 1, created), 0, limit).await);
    assert!(claim(event(2, 1, 1, updated), 0, limit).await, "the first edit");
    assert!(
        !claim(event(3, 1, 1, updated), 10, limit).await,
        "one edit an hour"
    );
    assert!(
        claim(event(2, 1, 1, updated), 20, limit).await,
        "a retry of the task"
    );
    assert!(
        claim(event(4, 1, 2, updated), 30, limit).await,
        "an edit of another article"
    );
    assert!(
        !claim(event(5, 1, 3, created), 40, limit).await,
        "the author's limit"
    );
    assert!(claim(event(5, 1, 3, created), 40, None).await, "without a limit");
    assert!(claim(event(6, 2, 4, created), 40, limit).await, "another author");
    assert!(claim(event(7, 1, 1, updated), 3601, limit).await, "an hour later");
    let events = "SELECT count(*) FROM notified_events";
    assert_eq!(fixture.count(events).await, 6);
    store.purge_deliveries(at(30), 100).await.unwrap();
    assert_eq!(
        fixture.count(events).await,
        4,
        "the events of second 0 are deleted"
    );
}

/// A task may be retried much later, for example after an outage of the mail server.
async fn a_task_whose_event_is_recorded_may_continue_after_newer_events(fixture: Fixture) {
    let store = &fixture.store;
    let claim = async |task: u128, second: i64, limit| {
        let event = NotifiedEvent {
            task_id: Uuid::from_u128(task),
            author: UserId(1),
            article: ArticleId(1),
            event: ArticleEvent::Updated,
        };
        store
            .claim_event(&event, at(second), NonZeroU32::new(limit))
            .await
            .unwrap()
    };
    assert!(claim(1, 0, 1).await);
    assert!(claim(2, 3601, 1).await, "the next edit, an hour later");
    assert!(claim(1, 3602, 1).await, "a retry of the first task");
    assert!(claim(2, 3603, 1).await, "a retry of the second task");
    assert!(!claim(3, 3604, 2).await, "one edit an hour");
}

async fn concurrent_tasks_notify_of_one_edit(fixture: Fixture) {
    let store = &fixture.store;
    let claims = (1..=16).map(|task| async move {
        let event = NotifiedEvent {
            task_id: Uuid::from_u128(task),
            author: UserId(1),
            article: ArticleId(1),
            event: ArticleEvent::Updated,
        };
        store.claim_event(&event, at(0), None).await.unwrap()
    });
    let claimed = join_all(claims).await;
    assert_eq!(claimed.iter().filter(|claimed| **claimed).count(), 1);
}

fn delivery(recipient: i32) -> DeliveryKey {
    DeliveryKey {
        task_id: Uuid::from_u128(7),
        recipient: UserId(recipient),
        channel: "log",
    }
}

async fn a_delivery_is_claimed_by_one_claimer(fixture: Fixture) {
    let store = &fixture.store;
    let key = delivery(1);
    let claims = join_all((0..16).map(|_| store.claim_delivery(&key, at(0), LEASE))).await;
    let claims: Vec<_> = claims.into_iter().map(Result::unwrap).collect();
    let claimed = claims
        .iter()
        .filter(|claim| **claim == DeliveryClaim::Claimed)
        .count();
    assert_eq!(claimed, 1);
    let held = claims
        .iter()
        .filter(|claim| **claim == DeliveryClaim::Held { remaining: LEASE })
        .count();
    assert_eq!(held, 15);
    // A claim for another recipient, channel or task is a different delivery.
    for key in [
        delivery(2),
        DeliveryKey {
            channel: "smtp",
            ..delivery(1)
        },
        DeliveryKey {
            task_id: Uuid::from_u128(8),
            ..delivery(1)
        },
    ] {
        let claim = store.claim_delivery(&key, at(0), LEASE).await.unwrap();
        assert_eq!(claim, DeliveryClaim::Claimed);
    }
}

async fn a_completed_delivery_cannot_be_claimed(fixture: Fixture) {
    let store = &fixture.store;
    let key = delivery(1);
    store.claim_delivery(&key, at(0), LEASE).await.unwrap();
    store.complete_delivery(&key, at(1)).await.unwrap();
    // A completed delivery cannot be released, and its lease no longer matters.
    store.release_delivery(&key, at(60)).await.unwrap();
    let claim = store.claim_delivery(&key, at(1_000), LEASE).await.unwrap();
    assert_eq!(claim, DeliveryClaim::Delivered);
    // A delivery completed without a claim is recorded as well.
    store.complete_delivery(&delivery(2), at(1)).await.unwrap();
    let claim = store.claim_delivery(&delivery(2), at(2), LEASE).await.unwrap();
    assert_eq!(claim, DeliveryClaim::Delivered);
}

async fn an_abandoned_delivery_is_claimed_again(fixture: Fixture) {
    let store = &fixture.store;
    let key = delivery(1);
    store.claim_delivery(&key, at(0), LEASE).await.unwrap();
    let held = store.claim_delivery(&key, at(59), LEASE).await.unwrap();
    let remaining = Duration::from_secs(1);
    assert_eq!(held, DeliveryClaim::Held { remaining });
    let claim = store.claim_delivery(&key, at(60), LEASE).await.unwrap();
    assert_eq!(claim, DeliveryClaim::Claimed);
    // The first run ends late.
    store.release_delivery(&key, at(60)).await.unwrap();
    let held = store.claim_delivery(&key, at(61), LEASE).await.unwrap();
    let remaining = Duration::from_secs(59);
    assert_eq!(held, DeliveryClaim::Held { remaining });
    store.release_delivery(&key, at(120)).await.unwrap();
    let claim = store.claim_delivery(&key, at(61), LEASE).await.unwrap();
    assert_eq!(claim, DeliveryClaim::Claimed);
}

async fn deliveries_are_purged_by_age(fixture: Fixture) {
    let store = &fixture.store;
    for (recipient, time) in [(1, 10), (2, 20), (4, 11)] {
        store
            .claim_delivery(&delivery(recipient), at(0), LEASE)
            .await
            .unwrap();
        store
            .complete_delivery(&delivery(recipient), at(time))
            .await
            .unwrap();
    }
    store.claim_delivery(&delivery(3), at(0), LEASE).await.unwrap();
    assert_eq!(store.purge_deliveries(at(20), 1).await.unwrap(), 1);
    let newer = store.claim_delivery(&delivery(4), at(30), LEASE).await.unwrap();
    assert_eq!(newer, DeliveryClaim::Delivered, "the oldest first");
    assert_eq!(store.purge_deliveries(at(20), 9).await.unwrap(), 1);
    assert_eq!(store.purge_deliveries(at(20), 9).await.unwrap(), 0);
    let delivered = store.claim_delivery(&delivery(2), at(30), LEASE).await.unwrap();
    assert_eq!(delivered, DeliveryClaim::Delivered);
    let held = store.claim_delivery(&delivery(3), at(30), LEASE).await.unwrap();
    assert!(matches!(held, DeliveryClaim::Held { .. }));
}

async fn recipients_of_a_new_article_favorited_another_by_its_author(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let mut readers = Vec::new();
    for n in 0..4 {
        readers.push(fixture.user(&format!("reader{n}@example.com")).await);
    }
    let earlier = fixture.article("Earlier", ann.id, at(0)).await;
    let new = fixture.article("New", ann.id, at(1)).await;
    let by_another = fixture.article("By another", readers[0].id, at(1)).await;
    for user in [&ann, &readers[0], &readers[2]] {
        store.favorite(&earlier.slug, user.id, at(2)).await.unwrap();
    }
    // Favourites of the new article itself, or of another author's article, add no recipients.
    store.favorite(&new.slug, readers[1].id, at(2)).await.unwrap();
    store
        .favorite(&by_another.slug, readers[3].id, at(2))
        .await
        .unwrap();

    let found = store
        .recipients(new.id, ArticleEvent::Created, UserId(0), 10)
        .await
        .unwrap();
    let ids: Vec<_> = found.iter().map(|recipient| recipient.id).collect();
    assert_eq!(ids, [readers[0].id, readers[2].id]);
    assert_eq!(
        (found[0].email.as_str(), &found[0].name),
        ("reader0@example.com", &readers[0].name)
    );
    let first = store
        .recipients(new.id, ArticleEvent::Created, UserId(0), 1)
        .await
        .unwrap();
    assert_eq!(first[0].id, readers[0].id);
    assert_eq!(first.len(), 1);
    let after = store
        .recipients(new.id, ArticleEvent::Created, readers[0].id, 10)
        .await
        .unwrap();
    assert_eq!(after.len(), 1);
    let missing = store
        .recipients(ArticleId(9_999), ArticleEvent::Created, UserId(0), 10)
        .await
        .unwrap();
    assert!(missing.is_empty());
}

async fn recipients_of_an_update_favorited_the_article(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let bob = fixture.user("bob@example.com").await;
    let eve = fixture.user("eve@example.com").await;
    let one = fixture.article("One", ann.id, at(0)).await;
    let two = fixture.article("Two", ann.id, at(0)).await;
    for user in [ann.id, bob.id] {
        store.favorite(&one.slug, user, at(1)).await.unwrap();
    }
    store.favorite(&two.slug, eve.id, at(1)).await.unwrap();
    let found = store
        .recipients(one.id, ArticleEvent::Updated, UserId(0), 10)
        .await
        .unwrap();
    assert_eq!(
        found.iter().map(|recipient| recipient.id).collect::<Vec<_>>(),
        [bob.id]
    );
    let after = store
        .recipients(one.id, ArticleEvent::Updated, bob.id, 10)
        .await
        .unwrap();
    assert!(after.is_empty());
}
