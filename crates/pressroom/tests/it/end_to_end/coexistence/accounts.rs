//! Users, passwords and tokens of each side, used on the other.
#![expect(clippy::disallowed_methods, reason = "tests query the tables directly")]

use serde_json::json;

use super::{PASSWORD, SideBySide, expect, login};
use crate::support::{eventually, raw};

async fn hash_of(sides: &SideBySide, email: &str) -> String {
    let row = sides
        .database()
        .await
        .query_one("SELECT password_hash FROM users WHERE email = $1", &[&email])
        .await;
    row.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_registered_on_one_side_can_log_in_on_the_other_and_both_accept_the_token() {
    let sides = SideBySide::start().await;
    for (number, (here, there)) in sides.both().into_iter().enumerate() {
        let email = format!("user{number}@example.com");
        let registered = raw::register(here, &email).await;
        assert!(hash_of(&sides, &email).await.starts_with("scrypt:32768:8:1$"));

        let logged_in = login(200, there, &email, PASSWORD).await;
        login(401, there, &email, "password124").await;
        let token = logged_in["token"]["access_token"].as_str().unwrap();
        for token in [registered.as_str(), token] {
            for side in [here, there] {
                let profile = expect(200, side, ("GET", "/api/user"), Some(token), None).await;
                assert_eq!(profile["email"], email);
                assert_eq!(profile["id"], logged_in["user"]["id"]);
            }
        }

        let again = json!({"email": email, "password": PASSWORD, "name": "Twin"});
        expect(409, there, ("POST", "/api/register"), None, Some(again)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_reject_a_token_with_a_wrong_signature() {
    let sides = SideBySide::start().await;
    let token = raw::register(sides.old, "alice@example.com").await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let forged: String = signature.chars().rev().collect();
    for side in [sides.old, sides.new] {
        let forged = format!("{signed}.{forged}");
        expect(401, side, ("GET", "/api/user"), Some(&forged), None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changed_in_pressroom_is_valid_in_flask() {
    let sides = SideBySide::start().await;
    let token = raw::register(sides.old, "alice@example.com").await;
    let change = json!({"password": "another secret", "current_password": PASSWORD});
    expect(200, sides.new, ("PUT", "/api/user"), Some(&token), Some(change)).await;
    for side in [sides.old, sides.new] {
        login(401, side, "alice@example.com", PASSWORD).await;
        login(200, side, "alice@example.com", "another secret").await;
    }
}

/// Flask's tokens contain no session, so all of those issued up to the change are rejected, except for the one that
/// made the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changed_in_pressroom_ends_sessions_of_flask_in_pressroom() {
    let sides = SideBySide::start().await;
    let kept = raw::register(sides.old, "alice@example.com").await;
    let mut others = Vec::new();
    for side in [sides.old, sides.new] {
        let other = login(200, side, "alice@example.com", PASSWORD).await;
        others.push(other["token"]["access_token"].as_str().unwrap().to_owned());
    }
    let change = json!({"password": "another secret", "current_password": PASSWORD});
    expect(200, sides.new, ("PUT", "/api/user"), Some(&kept), Some(change)).await;
    expect(200, sides.new, ("GET", "/api/user"), Some(&kept), None).await;
    for other in &others {
        if *other != kept {
            expect(401, sides.new, ("GET", "/api/user"), Some(other), None).await;
        }
    }
    eventually("Flask to issue a token in a later second", async || {
        let later = login(200, sides.old, "alice@example.com", "another secret").await;
        let token = later["token"]["access_token"].as_str().unwrap();
        let response = raw::request(sides.new, "GET", "/api/user", Some(token), None).await;
        (response.status == 200).then_some(())
    })
    .await;
}

/// Hash of [`PASSWORD`] by a version of werkzeug in which scrypt was not yet the default.
const OLD_HASH: &str =
    "pbkdf2:sha256:1000$vm6Hacswb6YiIVxm$04c1384ae78445162043801ab38f351fb61ee8046c62eb67bcc7cbe11a67c831";

async fn set_old_hash(sides: &SideBySide, email: &str) {
    let changed = sides
        .database()
        .await
        .execute(
            "UPDATE users SET password_hash = $1 WHERE email = $2",
            &[&OLD_HASH, &email],
        )
        .await;
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flask_verifies_a_hash_that_pressroom_has_upgraded() {
    let sides = SideBySide::start().await;
    raw::register(sides.old, "alice@example.com").await;
    set_old_hash(&sides, "alice@example.com").await;
    login(200, sides.old, "alice@example.com", PASSWORD).await;
    login(200, sides.new, "alice@example.com", PASSWORD).await;
    assert!(
        hash_of(&sides, "alice@example.com")
            .await
            .starts_with("scrypt:32768:8:1$")
    );
    login(200, sides.old, "alice@example.com", PASSWORD).await;
    login(401, sides.old, "alice@example.com", "password124").await;
}

/// Demonstrates the need for `PASSWORD_SCHEME` while both sides run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_password_scheme_a_login_to_pressroom_locks_the_user_out_of_flask() {
    let sides = SideBySide::with(&[]).await;
    raw::register(sides.old, "alice@example.com").await;
    login(200, sides.new, "alice@example.com", PASSWORD).await;
    assert!(
        hash_of(&sides, "alice@example.com")
            .await
            .starts_with("$argon2id$")
    );
    login(500, sides.old, "alice@example.com", PASSWORD).await;
    login(200, sides.new, "alice@example.com", PASSWORD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pressroom_rejects_a_logged_out_token() {
    let sides = SideBySide::start().await;
    for (here, _) in sides.both() {
        let token = raw::register(here, &format!("{}@example.com", here.port())).await;
        expect(200, sides.new, ("POST", "/api/logout"), Some(&token), None).await;
        expect(401, sides.new, ("GET", "/api/user"), Some(&token), None).await;
        expect(200, sides.old, ("GET", "/api/user"), Some(&token), None).await;
    }
}
