//! The suite that every store must pass: PostgreSQL, PostgreSQL behind a pooler, and SQLite.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use futures_util::future::join_all;
use pressroom::{
    domain::{
        ArticleChanges, ArticleEvent, ArticleId, Backlog, Cursor, DeliveryClaim, DeliveryKey, Email,
        EndedSessions, IdempotencyKey, IdempotentRequest, ListQuery, NewUser, NotifiedEvent, PageStart,
        PasswordHash, Precondition, SessionEnd, SessionGeneration, TokenKey, UserChanges, UserId,
        keys_expired_by,
    },
    store::{Constraint, StoreError},
};
use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, at, new_article, new_user, task};

/// Declares a test of each function for each store, on a fresh database.
macro_rules! over_all_stores {
    ($($name:ident)*) => {
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(super::Fixture::postgres().await).await;
                }
            )*
        }
        mod on_pgbouncer {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(super::Fixture::pgbouncer().await).await;
                }
            )*
        }
        mod on_pgbouncer_with_prepared_statements {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(super::Fixture::pgbouncer_with_prepared_statements().await).await;
                }
            )*
        }
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(super::Fixture::sqlite()).await;
                }
            )*
        }
    };
}

over_all_stores! {
    the_store_responds_and_its_schema_is_current
    an_account_is_found_in_any_letter_case
    an_address_in_another_case_is_taken
    concurrent_registrations_of_one_address_create_one_account
    a_profile_update_changes_only_the_given_fields
    a_user_may_change_the_case_of_their_address_but_not_take_anothers
    concurrent_changes_to_one_address_have_one_winner
    a_password_hash_is_upgraded_only_while_unchanged
    an_update_ends_other_sessions_unless_its_own_has_ended
    one_of_several_sessions_that_change_the_password_wins
    the_schemes_of_all_password_hashes_are_listed_once
    the_notified_events_of_an_author_are_limited
    concurrent_tasks_notify_of_one_edit
    a_revoked_token_is_rejected_until_it_is_purged
    an_article_is_found_by_slug_and_by_id
    a_taken_slug_is_a_conflict_and_leaves_no_task
    an_article_update_changes_only_the_given_fields
    an_update_of_a_missing_article_leaves_no_task
    no_two_versions_of_an_article_share_a_time
    an_update_replaces_only_the_listed_versions
    a_deletion_removes_only_the_listed_versions
    an_article_is_inserted_once_per_key
    a_taken_slug_does_not_store_the_key
    a_key_may_be_used_again_after_a_day
    old_keys_are_purged_in_batches
    deleting_an_article_deletes_its_favorites
    favoriting_twice_counts_once
    concurrent_favorites_of_many_users_keep_the_count_exact
    concurrent_favorites_of_one_user_keep_the_count_exact
    concurrent_deletions_and_favorites_all_succeed
    the_list_starts_with_the_newest_article_and_counts_all
    cursors_visit_all_articles_with_equal_timestamps
    a_page_beyond_the_end_is_empty_and_counts_all
    wildcards_in_a_search_are_literal
    a_search_ignores_case_beyond_ascii
    a_search_pages_like_the_list
    the_list_shows_the_viewers_favorites
    outbox_tasks_are_claimed_oldest_first_and_once
    a_task_with_an_expired_claim_is_claimed_again
    released_tasks_can_be_claimed_at_their_time
    all_claims_can_be_released_together
    finished_tasks_are_deleted
    concurrent_claims_never_overlap
    a_delivery_is_claimed_by_one_claimer
    a_completed_delivery_cannot_be_claimed
    an_abandoned_delivery_is_claimed_again
    deliveries_are_purged_by_age
    recipients_of_a_new_article_favorited_another_by_its_author
    recipients_of_an_update_favorited_the_article
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn is_conflict<T>(result: &Result<T, StoreError>, constraint: Constraint) -> bool {
    matches!(result, Err(StoreError::Conflict(broken)) if *broken == constraint)
}

async fn the_store_responds_and_its_schema_is_current(fixture: Fixture) {
    fixture.store.ping().await.unwrap();
    let state = fixture.store.state().await.unwrap();
    assert_eq!(state.problem(), None);
    assert_eq!(state.notice(), None);
}

async fn an_account_is_found_in_any_letter_case(fixture: Fixture) {
    let store = &fixture.store;
    let user = store
        .insert_user(new_user("Ann.Écrit@Example.com"))
        .await
        .unwrap();
    assert_eq!(user.email, "Ann.Écrit@Example.com");
    assert_eq!((user.bio.as_str(), user.image.as_str()), ("", ""));
    assert_eq!(user.created_at, at(0));
    for spelling in [
        "Ann.Écrit@Example.com",
        "ann.écrit@example.com",
        "ANN.ÉCRIT@EXAMPLE.COM",
    ] {
        let found = store.find_credentials(&email(spelling)).await.unwrap().unwrap();
        assert_eq!(found.user, user, "{spelling}");
        assert_eq!(
            found.password_hash,
            PasswordHash("hash of Ann.Écrit@Example.com".to_owned())
        );
    }
    let other = store.find_credentials(&email("bob@example.com")).await.unwrap();
    assert!(other.is_none());
}

async fn an_address_in_another_case_is_taken(fixture: Fixture) {
    let store = &fixture.store;
    store.insert_user(new_user("éa@example.com")).await.unwrap();
    for taken in ["éa@example.com", "ÉA@example.com", "éA@Example.COM"] {
        let rejected = store.insert_user(new_user(taken)).await;
        assert!(
            is_conflict(&rejected, Constraint::UserEmail),
            "{taken}: {rejected:?}"
        );
    }
    store.insert_user(new_user("éb@example.com")).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 2);
}

async fn concurrent_registrations_of_one_address_create_one_account(fixture: Fixture) {
    for round in 0..4 {
        let spelling = |n: usize| match n % 2 {
            0 => format!("ann{round}@example.com"),
            _ => format!("ANN{round}@Example.com"),
        };
        let inserts = (0..12).map(|n| fixture.store.insert_user(new_user(&spelling(n))));
        let (inserted, rejected): (Vec<_>, Vec<_>) =
            join_all(inserts).await.into_iter().partition(Result::is_ok);
        assert_eq!(inserted.len(), 1);
        assert!(
            rejected
                .iter()
                .all(|result| is_conflict(result, Constraint::UserEmail)),
            "{rejected:?}"
        );
    }
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 4);
}

async fn a_profile_update_changes_only_the_given_fields(fixture: Fixture) {
    let store = &fixture.store;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let changes = UserChanges {
        bio: Some("writes".to_owned()),
        ..UserChanges::default()
    };
    let updated = store.update_user(user.id, changes, at(5)).await.unwrap().unwrap();
    assert_eq!(updated.bio, "writes");
    assert_eq!((&updated.email, &updated.name), (&user.email, &user.name));
    assert_eq!(updated.created_at, user.created_at);

    let changes = UserChanges {
        email: Some(email("new@example.com")),
        password_hash: Some(PasswordHash("other".to_owned())),
        name: Some("Ann Other".to_owned()),
        bio: None,
        image: Some("http://img.example/a.png".to_owned()),
        ..UserChanges::default()
    };
    let updated = store.update_user(user.id, changes, at(6)).await.unwrap().unwrap();
    assert_eq!(updated.name, "Ann Other");
    assert_eq!(updated.bio, "writes");
    assert_eq!(updated.image, "http://img.example/a.png");
    let found = store
        .find_credentials(&email("new@example.com"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.user, updated);
    assert_eq!(found.password_hash, PasswordHash("other".to_owned()));

    let unknown = UserId(user.id.0 + 1);
    let missing = store.update_user(unknown, UserChanges::default(), at(7)).await;
    assert!(missing.unwrap().is_none());
    let with_email = UserChanges {
        email: Some(email("nobody@example.com")),
        ..UserChanges::default()
    };
    let missing = store.update_user(unknown, with_email, at(7)).await;
    assert!(missing.unwrap().is_none());
}

async fn a_user_may_change_the_case_of_their_address_but_not_take_anothers(fixture: Fixture) {
    let store = &fixture.store;
    let ann = store.insert_user(new_user("ann@example.com")).await.unwrap();
    store.insert_user(new_user("bob@example.com")).await.unwrap();
    let to = |address: &str| UserChanges {
        email: Some(email(address)),
        ..UserChanges::default()
    };
    let updated = store.update_user(ann.id, to("Ann@Example.com"), at(1)).await;
    assert_eq!(updated.unwrap().unwrap().email, "Ann@Example.com");
    for taken in ["bob@example.com", "BOB@example.com"] {
        let rejected = store.update_user(ann.id, to(taken), at(2)).await;
        assert!(is_conflict(&rejected, Constraint::UserEmail), "{rejected:?}");
    }
    let unchanged = store
        .find_credentials(&email("ann@example.com"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(unchanged.user.email, "Ann@Example.com");
}

async fn concurrent_changes_to_one_address_have_one_winner(fixture: Fixture) {
    let store = &fixture.store;
    let mut users = Vec::new();
    for n in 0..8 {
        users.push(
            store
                .insert_user(new_user(&format!("user{n}@example.com")))
                .await
                .unwrap(),
        );
    }
    let changes = users.iter().enumerate().map(|(n, user)| {
        let address = if n % 2 == 0 {
            "one@example.com"
        } else {
            "ONE@example.com"
        };
        let changes = UserChanges {
            email: Some(email(address)),
            ..UserChanges::default()
        };
        store.update_user(user.id, changes, at(1))
    });
    let (changed, rejected): (Vec<_>, Vec<_>) = join_all(changes).await.into_iter().partition(Result::is_ok);
    assert_eq!(changed.len(), 1);
    assert!(
        rejected
            .iter()
            .all(|result| is_conflict(result, Constraint::UserEmail)),
        "{rejected:?}"
    );
}

async fn a_password_hash_is_upgraded_only_while_unchanged(fixture: Fixture) {
    let store = &fixture.store;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let (old, new) = (
        PasswordHash("hash of ann@example.com".to_owned()),
        PasswordHash("new".to_owned()),
    );
    store.upgrade_password_hash(user.id, &old, &new).await.unwrap();
    let late = PasswordHash("late".to_owned());
    store.upgrade_password_hash(user.id, &old, &late).await.unwrap();
    let found = store
        .find_credentials(&email("ann@example.com"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.password_hash, new);
}

async fn an_update_ends_other_sessions_unless_its_own_has_ended(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let bob = fixture.user("bob@example.com").await;
    let key = |text: &str| TokenKey(text.to_owned());
    let changes = |generation: i32, second: i64, kept: &str| UserChanges {
        password_hash: Some(PasswordHash(format!("hash by {kept}"))),
        session_end: Some(SessionEnd {
            at: at(second),
            kept: Some(key(kept)),
        }),
        verified_in: Some(SessionGeneration(generation)),
        ..UserChanges::default()
    };
    let ended = |generation, second, kept: Option<&str>| {
        let last = SessionEnd {
            at: at(second),
            kept: kept.map(key),
        };
        let generation = SessionGeneration(generation);
        Some(EndedSessions { generation, last })
    };
    let session = async |user| store.find_session(user, &key("any")).await.unwrap().unwrap();
    let update = async |changes| store.update_user(ann.id, changes, at(9)).await.unwrap();
    assert_eq!(session(ann.id).await.ended, None);

    assert!(update(changes(0, 5, "first")).await.is_some());
    assert_eq!(session(ann.id).await.ended, ended(1, 5, Some("first")));
    assert_eq!(session(bob.id).await.ended, None);
    let found = store.find_credentials(&email("ANN@example.com")).await.unwrap();
    assert_eq!(found.unwrap().generation, SessionGeneration(1));

    // Another session verified the old password before that.
    assert!(update(changes(0, 5, "second")).await.is_none());
    assert!(
        update(changes(0, 5, "first")).await.is_some(),
        "the same session did"
    );
    assert_eq!(session(ann.id).await.ended, ended(2, 5, Some("first")));
    let credentials = store.find_credentials_by_id(ann.id).await.unwrap().unwrap();
    assert_eq!(
        credentials.password_hash,
        PasswordHash("hash by first".to_owned())
    );
    assert_eq!(credentials.generation, SessionGeneration(2));
    assert!(update(changes(2, 6, "second")).await.is_some());
    assert_eq!(session(ann.id).await.ended, ended(3, 6, Some("second")));

    // The clock of the next process may be behind.
    let end = SessionEnd {
        at: at(4),
        kept: None,
    };
    store.end_sessions(ann.id, end).await.unwrap();
    assert_eq!(session(ann.id).await.ended, ended(4, 6, None));
    assert!(update(changes(3, 7, "second")).await.is_none());

    let taken = UserChanges {
        email: Some(email("bob@example.com")),
        ..changes(4, 7, "third")
    };
    let taken = store.update_user(ann.id, taken, at(9)).await;
    assert!(is_conflict(&taken, Constraint::UserEmail), "{taken:?}");
    assert_eq!(session(ann.id).await.ended, ended(4, 6, None));
    let free = UserChanges {
        email: Some(email("new@example.com")),
        ..changes(4, 7, "third")
    };
    assert_eq!(update(free).await.unwrap().email, "new@example.com");
    assert_eq!(session(ann.id).await.ended, ended(5, 7, Some("third")));
}

/// Each has verified the password in generation 0.
async fn one_of_several_sessions_that_change_the_password_wins(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let changes = (0..12).map(|session| async move {
        let changes = UserChanges {
            password_hash: Some(PasswordHash(format!("by {session}"))),
            session_end: Some(SessionEnd {
                at: at(5),
                kept: Some(TokenKey(session.to_string())),
            }),
            verified_in: Some(SessionGeneration(0)),
            ..UserChanges::default()
        };
        store.update_user(ann.id, changes, at(9)).await.unwrap().is_some()
    });
    let changed = join_all(changes).await;
    let winner = changed.iter().position(|changed| *changed).unwrap();
    assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
    let credentials = store.find_credentials_by_id(ann.id).await.unwrap().unwrap();
    assert_eq!(credentials.password_hash, PasswordHash(format!("by {winner}")));
    assert_eq!(credentials.generation, SessionGeneration(1));
}

async fn the_schemes_of_all_password_hashes_are_listed_once(fixture: Fixture) {
    let store = &fixture.store;
    assert_eq!(store.password_schemes(32).await.unwrap(), Vec::<String>::new());
    let hashes = [
        "$argon2id$v=19$m=12288,t=3,p=1$c2FsdHNhbHQ$aGFzaA",
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA",
        "scrypt:32768:8:1$salt$00",
        "pbkdf2:sha256:600000$salt$00",
        "pbkdf2:sha256:1000000$salt$00",
        "neither$of$them",
        "",
    ];
    for (i, hash) in hashes.into_iter().cycle().take(30).enumerate() {
        let user = NewUser {
            password_hash: PasswordHash(hash.to_owned()),
            ..new_user(&format!("user{i}@example.com"))
        };
        store.insert_user(user).await.unwrap();
    }
    let mut schemes = store.password_schemes(32).await.unwrap();
    schemes.sort();
    assert_eq!(
        schemes,
        [
            "$argon2id$v=19$m=12288,t=3,p=1",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "pbkdf2:sha256:1000000",
            "pbkdf2:sha256:600000",
            "scrypt:32768:8:1",
        ]
    );
    assert_eq!(store.password_schemes(2).await.unwrap().len(), 2);
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
    assert_eq!(fixture.count(events).await, 4, "those of second 0 are deleted");
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

async fn a_revoked_token_is_rejected_until_it_is_purged(fixture: Fixture) {
    let store = &fixture.store;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let (token, other) = (TokenKey("one".to_owned()), TokenKey("two".to_owned()));
    let session = store.find_session(user.id, &token).await.unwrap().unwrap();
    assert_eq!((session.user, session.revoked), (user.clone(), false));

    store.revoke_token(&token, at(100)).await.unwrap();
    store.revoke_token(&token, at(200)).await.unwrap();
    assert!(
        store
            .find_session(user.id, &token)
            .await
            .unwrap()
            .unwrap()
            .revoked
    );
    assert!(
        !store
            .find_session(user.id, &other)
            .await
            .unwrap()
            .unwrap()
            .revoked
    );

    assert_eq!(store.purge_revoked_tokens(at(99)).await.unwrap(), 0);
    assert!(
        store
            .find_session(user.id, &token)
            .await
            .unwrap()
            .unwrap()
            .revoked
    );
    assert_eq!(store.purge_revoked_tokens(at(100)).await.unwrap(), 1);
    assert!(
        !store
            .find_session(user.id, &token)
            .await
            .unwrap()
            .unwrap()
            .revoked
    );

    let unknown = UserId(user.id.0 + 1);
    assert!(store.find_session(unknown, &token).await.unwrap().is_none());
}

async fn an_article_is_found_by_slug_and_by_id(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let inserted = store
        .insert_article(new_article("First — é", ann.id, at(3)), task(1, at(3)))
        .await
        .unwrap();
    assert_eq!(inserted.title, "First — é");
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
    assert!(store.find_article("nothing", None).await.unwrap().is_none());
    assert!(
        store
            .find_article_by_id(ArticleId(inserted.id.0 + 1))
            .await
            .unwrap()
            .is_none()
    );
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

async fn deleting_an_article_deletes_its_favorites(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let deleted = fixture.article("Deleted", ann.id, at(0)).await;
    let other = fixture.article("Other", ann.id, at(0)).await;
    store.favorite(&deleted.slug, ann.id, at(1)).await.unwrap();
    store.favorite(&other.slug, ann.id, at(1)).await.unwrap();
    assert!(
        store
            .delete_article(deleted.id, Precondition::default())
            .await
            .unwrap()
    );
    assert!(
        !store
            .delete_article(deleted.id, Precondition::default())
            .await
            .unwrap()
    );
    assert!(store.find_article(&deleted.slug, None).await.unwrap().is_none());
    assert!(store.find_article(&other.slug, None).await.unwrap().is_some());
    assert_eq!(fixture.count("SELECT count(*) FROM favorites").await, 1);
}

async fn favoriting_twice_counts_once(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await;
    let bob = fixture.user("bob@example.com").await;
    let slug = fixture.article("One", ann.id, at(0)).await.slug;
    for _ in 0..2 {
        let article = store.favorite(&slug, bob.id, at(1)).await.unwrap().unwrap();
        assert_eq!((article.favorites_count, article.favorited), (1, true));
        assert_eq!(article.updated_at, at(0));
        assert_eq!(article.author.id, ann.id);
    }
    let article = store.favorite(&slug, ann.id, at(1)).await.unwrap().unwrap();
    assert_eq!(article.favorites_count, 2);
    for _ in 0..2 {
        let article = store.unfavorite(&slug, bob.id).await.unwrap().unwrap();
        assert_eq!((article.favorites_count, article.favorited), (1, false));
    }
    let seen = store.find_article(&slug, Some(ann.id)).await.unwrap().unwrap();
    assert_eq!((seen.favorites_count, seen.favorited), (1, true));
    assert!(store.favorite("nothing", bob.id, at(1)).await.unwrap().is_none());
    assert!(store.unfavorite("nothing", bob.id).await.unwrap().is_none());
}

async fn concurrent_favorites_of_many_users_keep_the_count_exact(fixture: Fixture) {
    let store = &fixture.store;
    let mut users = Vec::new();
    for n in 0..64 {
        users.push(fixture.user(&format!("user{n}@example.com")).await.id);
    }
    let article = fixture.article("One", users[0], at(0)).await;
    let added = join_all(
        users
            .iter()
            .map(|user| store.favorite(&article.slug, *user, at(1))),
    )
    .await;
    assert!(added.iter().all(|result| matches!(result, Ok(Some(_)))));
    assert_eq!(fixture.favorites_of(article.id).await, (64, 64));

    // Half of the users remove their favourite while the others add theirs again.
    let mixed = users.iter().enumerate().map(async |(n, user)| {
        if n % 2 == 0 {
            store.unfavorite(&article.slug, *user).await
        } else {
            store.favorite(&article.slug, *user, at(2)).await
        }
    });
    for result in join_all(mixed).await {
        result.unwrap().unwrap();
    }
    assert_eq!(fixture.favorites_of(article.id).await, (32, 32));
}

async fn concurrent_favorites_of_one_user_keep_the_count_exact(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    let article = fixture.article("One", ann, at(0)).await;
    let toggles = (0..64).map(async |n| {
        if n % 2 == 0 {
            store.favorite(&article.slug, ann, at(1)).await
        } else {
            store.unfavorite(&article.slug, ann).await
        }
    });
    for result in join_all(toggles).await {
        result.unwrap().unwrap();
    }
    let (counted, rows) = fixture.favorites_of(article.id).await;
    assert_eq!(counted, rows);
    assert!(rows <= 1);
}

async fn concurrent_deletions_and_favorites_all_succeed(fixture: Fixture) {
    let store = &fixture.store;
    let mut users = Vec::new();
    for n in 0..16 {
        users.push(fixture.user(&format!("user{n}@example.com")).await.id);
    }
    for round in 0..6 {
        let article = fixture.article(&format!("No {round}"), users[0], at(0)).await;
        for user in &users[..8] {
            store.favorite(&article.slug, *user, at(1)).await.unwrap();
        }
        let race = users.iter().enumerate().map(async |(n, user)| match n {
            4 => store
                .delete_article(article.id, Precondition::default())
                .await
                .map(|_| ()),
            n if n < 8 => store.unfavorite(&article.slug, *user).await.map(|_| ()),
            _ => store.favorite(&article.slug, *user, at(2)).await.map(|_| ()),
        });
        for result in join_all(race).await {
            result.unwrap();
        }
        assert!(store.find_article_by_id(article.id).await.unwrap().is_none());
    }
    assert_eq!(fixture.count("SELECT count(*) FROM favorites").await, 0);
}

fn list(start: PageStart, limit: i64) -> ListQuery {
    ListQuery {
        start,
        limit,
        ..ListQuery::default()
    }
}

fn search(text: &str) -> ListQuery {
    ListQuery {
        search: Some(text.to_owned()),
        ..list(PageStart::Offset(0), 100)
    }
}

async fn the_list_starts_with_the_newest_article_and_counts_all(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    let empty = store.list_articles(list(PageStart::Offset(0), 20)).await.unwrap();
    assert_eq!((empty.articles.len(), empty.total, empty.more), (0, 0, false));

    for (title, time) in [("b", 20), ("a", 10), ("d", 30), ("c", 20)] {
        fixture.article(title, ann, at(time)).await;
    }
    let mut seen = Vec::new();
    for (offset, more) in [(0, true), (3, false)] {
        let page = store
            .list_articles(list(PageStart::Offset(offset), 3))
            .await
            .unwrap();
        assert_eq!((page.total, page.more), (4, more));
        seen.extend(page.articles.into_iter().map(|article| article.title));
    }
    // With equal timestamps, the higher id comes first.
    assert_eq!(seen, ["d", "c", "b", "a"]);
    let whole = store.list_articles(list(PageStart::Offset(0), 4)).await.unwrap();
    assert_eq!((whole.articles.len(), whole.more), (4, false));
    assert_eq!(whole.articles[0].author.email, "ann@example.com");
}

async fn cursors_visit_all_articles_with_equal_timestamps(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    for n in 0..23 {
        // Most articles have the same timestamp; a few are older.
        fixture
            .article(&format!("No {n}"), ann, at(if n % 5 == 0 { n } else { 100 }))
            .await;
    }
    let mut start = PageStart::Offset(0);
    let mut visited = Vec::new();
    loop {
        let page = store.list_articles(list(start, 4)).await.unwrap();
        assert_eq!(page.total, 23);
        let last = page.articles.last().unwrap();
        start = PageStart::After(Cursor {
            created_at: last.created_at,
            id: last.id,
        });
        visited.extend(
            page.articles
                .iter()
                .map(|article| (article.created_at, article.id)),
        );
        if !page.more {
            break;
        }
    }
    let mut sorted = visited.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    assert_eq!(visited, sorted);
    assert_eq!(visited.into_iter().collect::<BTreeSet<_>>().len(), 23);
    let after_all = store.list_articles(list(start, 4)).await.unwrap();
    assert_eq!(
        (after_all.articles.len(), after_all.total, after_all.more),
        (0, 23, false)
    );
}

async fn a_page_beyond_the_end_is_empty_and_counts_all(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    fixture.article("One", ann, at(0)).await;
    for offset in [1, 1_000, i64::MAX] {
        let page = fixture
            .store
            .list_articles(list(PageStart::Offset(offset), 20))
            .await
            .unwrap();
        assert_eq!((page.articles.len(), page.total, page.more), (0, 1, false));
    }
}

async fn wildcards_in_a_search_are_literal(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    for title in ["100% sure", "1000 sure", "snake_case", "snakecase", "back\\slash"] {
        fixture.article(title, ann, at(0)).await;
    }
    for (text, found) in [
        ("0%", vec!["100% sure"]),
        ("E_C", vec!["snake_case"]),
        ("k\\s", vec!["back\\slash"]),
        ("\\", vec!["back\\slash"]),
        ("%", vec!["100% sure"]),
        ("_", vec!["snake_case"]),
        ("nothing", vec![]),
    ] {
        let page = fixture.store.list_articles(search(text)).await.unwrap();
        let titles: Vec<_> = page
            .articles
            .iter()
            .map(|article| article.title.as_str())
            .collect();
        assert_eq!(titles, found, "{text}");
        assert_eq!(page.total, i64::try_from(found.len()).unwrap());
    }
}

async fn a_search_ignores_case_beyond_ascii(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    for title in ["Crème BRÛLÉE", "ЖИЗНЬ", "Ὀδυσσεύς"] {
        fixture.article(title, ann, at(0)).await;
    }
    for (text, title) in [
        ("brûlée", "Crème BRÛLÉE"),
        ("CRÈME", "Crème BRÛLÉE"),
        ("жизнь", "ЖИЗНЬ"),
    ] {
        let page = fixture.store.list_articles(search(text)).await.unwrap();
        assert_eq!(page.articles.len(), 1, "{text}");
        assert_eq!(page.articles[0].title, title);
    }
}

async fn a_search_pages_like_the_list(fixture: Fixture) {
    let ann = fixture.user("ann@example.com").await.id;
    for n in 0..7 {
        fixture.article(&format!("Found {n}"), ann, at(5)).await;
        fixture.article(&format!("Other {n}"), ann, at(5)).await;
    }
    let mut titles = Vec::new();
    let mut start = PageStart::Offset(1);
    for more in [true, false] {
        let query = ListQuery {
            start,
            limit: 3,
            ..search("FOUND")
        };
        let page = fixture.store.list_articles(query).await.unwrap();
        assert_eq!((page.total, page.more), (7, more));
        let last = page.articles.last().unwrap();
        start = PageStart::After(Cursor {
            created_at: last.created_at,
            id: last.id,
        });
        titles.extend(page.articles.into_iter().map(|article| article.title));
    }
    assert_eq!(
        titles,
        ["Found 5", "Found 4", "Found 3", "Found 2", "Found 1", "Found 0"]
    );
}

async fn the_list_shows_the_viewers_favorites(fixture: Fixture) {
    let store = &fixture.store;
    let ann = fixture.user("ann@example.com").await.id;
    let bob = fixture.user("bob@example.com").await.id;
    let one = fixture.article("One", ann, at(1)).await;
    fixture.article("Two", ann, at(2)).await;
    store.favorite(&one.slug, bob, at(3)).await.unwrap();
    for (viewer, expected) in [
        (Some(bob), [false, true]),
        (Some(ann), [false; 2]),
        (None, [false; 2]),
    ] {
        let query = ListQuery {
            viewer,
            ..list(PageStart::Offset(0), 20)
        };
        let page = store.list_articles(query).await.unwrap();
        let favorited: Vec<_> = page.articles.iter().map(|article| article.favorited).collect();
        assert_eq!(favorited, expected);
        assert_eq!(page.articles[1].favorites_count, 1);
    }
}

pub const LEASE: Duration = Duration::from_secs(60);

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
    store.release_outbox(&[claimed[1].id], at(12)).await.unwrap();
    assert!(store.claim_outbox(at(11), LEASE, 9).await.unwrap().is_empty());
    let again = store.claim_outbox(at(12), LEASE, 9).await.unwrap();
    assert_eq!(
        again.iter().map(|task| task.id).collect::<Vec<_>>(),
        [claimed[1].id]
    );
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
    // The same claim for another recipient, channel or task is a different delivery.
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
    store.release_delivery(&key).await.unwrap();
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
    store.release_delivery(&key).await.unwrap();
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
