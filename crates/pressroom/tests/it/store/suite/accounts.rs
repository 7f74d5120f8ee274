//! Accounts: addresses, password hashes, sessions and revoked tokens.

use futures_util::future::join_all;
use pressroom::{
    domain::{
        Email, EndedSessions, NewUser, PasswordHash, SessionEnd, SessionGeneration, TokenKey, UserChanges,
        UserId,
    },
    store::Constraint,
};

use super::{is_conflict, over_all_stores};
use crate::store::fixture::{Fixture, at, new_user};

over_all_stores! {
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
    a_revoked_token_is_rejected_until_it_is_purged
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
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

    // Another session had verified the old password before the change.
    assert!(update(changes(0, 5, "second")).await.is_none());
    assert!(
        update(changes(0, 5, "first")).await.is_some(),
        "the session that made the change may change it again"
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

    // The clock of the process that ends the sessions may be behind.
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

/// Each session has verified the password in generation 0.
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

async fn a_revoked_token_is_rejected_until_it_is_purged(fixture: Fixture) {
    let store = &fixture.store;
    let user = store.insert_user(new_user("ann@example.com")).await.unwrap();
    let (token, other) = (TokenKey("one".to_owned()), TokenKey("two".to_owned()));
    let session = store.find_session(user.id, &token).await.unwrap().unwrap();
    assert_eq!((session.user, session.revoked), (user.clone(), false));

    store.revoke_token(&token, at(100)).await.unwrap();
    store.revoke_token(&token, at(200)).await.unwrap();
    let revoked = async |token| store.find_session(user.id, token).await.unwrap().unwrap().revoked;
    assert!(revoked(&token).await);
    assert!(!revoked(&other).await);

    assert_eq!(store.purge_revoked_tokens(at(99)).await.unwrap(), 0);
    assert!(revoked(&token).await);
    assert_eq!(store.purge_revoked_tokens(at(100)).await.unwrap(), 1);
    assert!(!revoked(&token).await);

    let unknown = UserId(user.id.0 + 1);
    assert!(store.find_session(unknown, &token).await.unwrap().is_none());
}
