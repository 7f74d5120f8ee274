//! Articles, their versions, and idempotency keys.

use std::time::Duration;

use futures_util::future::join_all;
use pressroom::{
    domain::{
        ArticleChanges, ArticleEvent, ArticleId, Backlog, IdempotencyKey, IdempotentRequest, Precondition,
        UserId, keys_expired_by,
    },
    store::{Constraint, StoreError},
};
use serde_json::json;

use super::{is_conflict, over_all_stores, search};
use crate::store::fixture::{Fixture, at, new_article, task};

over_all_stores! {
    an_article_is_found_by_slug_and_by_id
    a_taken_slug_is_a_conflict_and_leaves_no_task
    an_article_update_changes_only_the_given_fields
    an_update_of_a_missing_article_leaves_no_task
    an_update_leaves_a_task_only_if_it_alters_the_article
    one_of_several_concurrent_equal_updates_leaves_a_task
    no_two_versions_of_an_article_share_a_time
    an_update_replaces_only_the_listed_versions
    a_deletion_removes_only_the_listed_versions
    an_article_is_inserted_once_per_key
    a_taken_slug_does_not_store_the_key
    a_key_may_be_used_again_after_a_day
    old_keys_are_purged_in_batches
}

async fn an_article_is_found_by_slug_and_by_id(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let mut last = ArticleId(0);
    for (title, body) in [
        ("First — é", "all of it".to_owned()),
        ("Large", "é".repeat(500_000)),
    ] {
        let mut new = new_article(title, ann.id, at(3));
        new.draft.body.clone_from(&body);
        let inserted = store.insert_article(new, task(1, at(3))).await.unwrap();
        assert_eq!(inserted.title, title);
        assert_eq!(
            (inserted.author.id, inserted.author.email.as_str()),
            (ann.id, "ann@example.com")
        );
        assert_eq!((inserted.favorites_count, inserted.favorited), (0, false));
        assert_eq!((inserted.created_at, inserted.updated_at), (at(3), at(3)));
        let by_slug = store.find_article(&inserted.slug, Some(ann.id)).await.unwrap();
        assert_eq!(by_slug.as_ref(), Some(&inserted));
        let by_id = store.find_article_by_id(inserted.id).await.unwrap();
        assert_eq!(by_id, by_slug);
        assert_eq!(inserted.body, body);
        last = inserted.id;
    }
    assert!(store.find_article("nothing", None).await.unwrap().is_none());
    let missing = store.find_article_by_id(ArticleId(last.0 + 1)).await.unwrap();
    assert!(missing.is_none());
}

async fn a_taken_slug_is_a_conflict_and_leaves_no_task(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    store
        .insert_article(new_article("One", ann.id, at(0)), task(1, at(0)))
        .await
        .unwrap();
    let rejected = store
        .insert_article(new_article("One", ann.id, at(1)), task(2, at(1)))
        .await;
    assert!(is_conflict(&rejected, Constraint::ArticleSlug), "{rejected:?}");
    let without_author = new_article("Two", UserId(ann.id.0 + 1), at(1));
    let rejected = store.insert_article(without_author, task(3, at(1))).await;
    assert!(matches!(rejected, Err(StoreError::Failed(_))), "{rejected:?}");
    assert_eq!(store.outbox_backlog().await.unwrap().tasks, 1);
    assert_eq!(fixture.count("SELECT count(*) FROM articles").await, 1);
}

async fn an_article_update_changes_only_the_given_fields(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let article = fixture.article("One", ann.id, at(0)).await;
    store.favorite(&article.slug, ann.id, at(1)).await.unwrap();
    let changes = ArticleChanges {
        title: Some("Éclair".to_owned()),
        ..ArticleChanges::default()
    };
    let mut update = task(2, at(5));
    update.event = ArticleEvent::Updated;
    let updated = store
        .update_article(article.id, changes, Precondition::default(), ann.id, update)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(updated.title, "Éclair");
    assert_eq!(
        (&updated.slug, &updated.body, &updated.description),
        (&article.slug, &article.body, &article.description)
    );
    assert_eq!((updated.created_at, updated.updated_at), (at(0), at(5)));
    assert_eq!((updated.favorites_count, updated.favorited), (1, true));
    let found = store.find_article(&article.slug, Some(ann.id)).await.unwrap();
    assert_eq!(found, Some(updated));
    // The search finds the new title.
    let page = store.list_articles(search("éCLAIR")).await.unwrap();
    assert_eq!(page.total, 1);
    let tasks = store
        .claim_outbox(at(10), Duration::from_secs(60), 10)
        .await
        .unwrap();
    assert_eq!(tasks[1].args, vec![json!(article.id.0), json!("updated")]);
}

async fn an_update_of_a_missing_article_leaves_no_task(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await;
    let missing = fixture
        .store
        .update_article(
            ArticleId(999),
            ArticleChanges::default(),
            Precondition::default(),
            ann.id,
            task(1, at(0)),
        )
        .await;
    assert!(missing.unwrap().is_none());
    assert_eq!(
        fixture.store.outbox_backlog().await.unwrap(),
        Backlog {
            tasks: 0,
            oldest: None
        }
    );
}

async fn an_update_leaves_a_task_only_if_it_alters_the_article(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let article = fixture.article("One", ann.id, at(0)).await;
    let mut tasks = 1;
    let mut version = article.updated_at;
    for (title, description, body, alters) in [
        (None, None, None, false),
        (Some("One"), Some("about it"), Some("all of it"), false),
        (Some("one"), None, None, true),
        (Some("one"), Some(""), None, true),
        (Some("one"), Some(""), Some("all of it "), true),
        (None, None, Some("all of it "), false),
    ] {
        let changes = ArticleChanges {
            title: title.map(str::to_owned),
            description: description.map(str::to_owned),
            body: body.map(str::to_owned),
        };
        let update = task(tasks + 1, at(0));
        let updated = store
            .update_article(article.id, changes, Precondition::default(), ann.id, update)
            .await
            .unwrap()
            .unwrap();
        assert!(updated.updated_at > version, "{title:?} {description:?} {body:?}");
        version = updated.updated_at;
        tasks += i64::from(alters);
        let backlog = store.outbox_backlog().await.unwrap();
        assert_eq!(backlog.tasks, tasks, "{title:?} {description:?} {body:?}");
    }
}

async fn one_of_several_concurrent_equal_updates_leaves_a_task(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let article = fixture.article("One", ann.id, at(0)).await;
    let updates = join_all((0..16).map(|n| {
        let changes = ArticleChanges {
            title: Some("Two".to_owned()),
            ..ArticleChanges::default()
        };
        let update = task(n + 2, at(1));
        store.update_article(article.id, changes, Precondition::default(), ann.id, update)
    }));
    let mut versions: Vec<_> = updates
        .await
        .into_iter()
        .map(|updated| updated.unwrap().unwrap().updated_at)
        .collect();
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 16);
    assert_eq!(store.outbox_backlog().await.unwrap().tasks, 2);
}

async fn no_two_versions_of_an_article_share_a_time(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let article = fixture.article("One", ann.id, at(5)).await;
    let update = async |second| {
        let changes = ArticleChanges::default();
        let any = Precondition::default();
        let updated = store.update_article(article.id, changes, any, ann.id, task(2, at(second)));
        updated.await.unwrap().unwrap().updated_at
    };
    let microsecond = jiff::SignedDuration::from_micros(1);
    // The clock has not advanced, or was set back.
    assert_eq!(update(5).await, at(5) + microsecond);
    assert_eq!(update(3).await, at(5) + microsecond * 2);
    assert_eq!(update(6).await, at(6));
}

async fn an_update_replaces_only_the_listed_versions(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let article = fixture.article("One", ann.id, at(0)).await;
    let update = async |second, one_of: Option<Vec<_>>, none_of| {
        let changes = ArticleChanges {
            body: Some(format!("at {second}")),
            ..ArticleChanges::default()
        };
        let precondition = Precondition { one_of, none_of };
        let updated = store.update_article(article.id, changes, precondition, ann.id, task(2, at(second)));
        updated.await.unwrap().is_some()
    };
    assert!(!update(1, Some(vec![]), vec![]).await);
    assert!(!update(2, Some(vec![at(9)]), vec![]).await);
    assert!(!update(3, None, vec![at(9), at(0)]).await);
    assert!(!update(4, Some(vec![at(0)]), vec![at(0)]).await);
    assert_eq!(
        store.outbox_backlog().await.unwrap().tasks,
        1,
        "a rejected update adds no task"
    );
    assert!(update(5, Some(vec![at(9), at(0)]), vec![at(8)]).await);
    assert!(!update(6, Some(vec![at(0)]), vec![]).await);
    let current = store.find_article_by_id(article.id).await.unwrap().unwrap();
    assert_eq!((current.body.as_str(), current.updated_at), ("at 5", at(5)));
}

async fn a_deletion_removes_only_the_listed_versions(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let article = fixture.article("One", ann.id, at(0)).await;
    store.favorite(&article.slug, ann.id, at(1)).await.unwrap();
    let only = |time| Precondition {
        one_of: Some(vec![time]),
        none_of: vec![],
    };
    assert!(!store.delete_article(article.id, only(at(1))).await.unwrap());
    assert_eq!(fixture.favorites_of(article.id).await, (1, 1));
    assert!(store.delete_article(article.id, only(at(0))).await.unwrap());
    assert_eq!(fixture.count("SELECT count(*) FROM favorites").await, 0);
}

/// Returns a request with an idempotency key, made at `second`.
fn once(key: &str, fingerprint: u8, second: i64) -> IdempotentRequest {
    IdempotentRequest {
        key: IdempotencyKey::parse(key.as_bytes()).unwrap(),
        fingerprint: [fingerprint; 32],
        since: keys_expired_by(at(second)),
    }
}

const KEYS: &str = "SELECT count(*) FROM idempotency_keys";

async fn an_article_is_inserted_once_per_key(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let eve = fixture.user("eve@example.com").await;
    let request = once("key", 1, 0);
    let new = |slug| new_article(slug, ann.id, at(0));
    let created = store
        .insert_article_once(new("One"), &request, task(1, at(0)))
        .await
        .unwrap();
    assert_eq!(
        store.find_article_by_id(created.id).await.unwrap().as_ref(),
        Some(&created)
    );
    let again = store
        .insert_article_once(new("Two"), &request, task(2, at(0)))
        .await;
    assert!(
        matches!(again, Err(StoreError::Conflict(Constraint::IdempotencyKey))),
        "{again:?}"
    );
    assert_eq!(fixture.count("SELECT count(*) FROM articles").await, 1);
    assert_eq!(store.outbox_backlog().await.unwrap().tasks, 1);
    let first = store
        .find_stored_response(ann.id, &request.key, request.since)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((first.fingerprint, &first.article), (vec![1; 32], &created));
    let other_user = store
        .find_stored_response(eve.id, &request.key, request.since)
        .await
        .unwrap();
    assert!(other_user.is_none(), "keys are separate for each user");
    // The insert took its id from the sequence, so later ids are greater.
    let next = fixture.article("Three", ann.id, at(1)).await;
    assert!(next.id > created.id);
}

async fn a_taken_slug_does_not_store_the_key(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    fixture.article("One", ann.id, at(0)).await;
    let request = once("key", 1, 0);
    let new = |slug| new_article(slug, ann.id, at(0));
    let taken = store
        .insert_article_once(new("One"), &request, task(2, at(0)))
        .await;
    assert!(
        matches!(taken, Err(StoreError::Conflict(Constraint::ArticleSlug))),
        "{taken:?}"
    );
    assert_eq!(fixture.count(KEYS).await, 0);
    store
        .insert_article_once(new("Two"), &request, task(2, at(0)))
        .await
        .unwrap();
}

async fn a_key_may_be_used_again_after_a_day(fixture: Fixture) {
    const DAY: i64 = 24 * 60 * 60;
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let new = |slug, second| new_article(slug, ann.id, at(second));
    let insert = async |slug, fingerprint, second| {
        let request = once("key", fingerprint, second);
        let inserted = store.insert_article_once(new(slug, second), &request, task(second + 1, at(second)));
        inserted.await.is_ok()
    };
    assert!(insert("One", 1, 0).await);
    assert!(!insert("Two", 2, DAY - 1).await);
    let late = once("key", 2, DAY);
    let found = store
        .find_stored_response(ann.id, &late.key, late.since)
        .await
        .unwrap();
    assert!(found.is_none());
    assert!(insert("Two", 2, DAY).await);
    let found = store
        .find_stored_response(ann.id, &late.key, late.since)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.fingerprint, found.article.slug.as_str()),
        (vec![2; 32], "Two")
    );
    assert_eq!(fixture.count(KEYS).await, 1);
}

async fn old_keys_are_purged_in_batches(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    for second in 0..5 {
        let slug = format!("No {second}");
        let request = once(&slug, 1, second);
        let new = new_article(&slug, ann.id, at(second));
        store
            .insert_article_once(new, &request, task(second + 1, at(second)))
            .await
            .unwrap();
    }
    assert_eq!(store.purge_idempotency_keys(at(3), 3).await.unwrap(), 3);
    assert_eq!(store.purge_idempotency_keys(at(3), 3).await.unwrap(), 1);
    assert_eq!(store.purge_idempotency_keys(at(3), 3).await.unwrap(), 0);
    assert_eq!(fixture.count(KEYS).await, 1);
}
