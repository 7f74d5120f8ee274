//! Changes to credentials, sessions, and the duration of logins.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pressroom::{
    accounts::{SecretKey, Tokens},
    clock::Clock as _,
    domain::{Email, NewUser, PasswordHash},
    ids::RandomIds,
    store::Store,
};
use serde_json::{Value, json};

use super::over_both_stores;
use crate::support::{
    api::{self, RecordedTime},
    raw,
};

over_both_stores! {
    new_credentials_require_the_current_password
    new_credentials_end_all_other_sessions_in_every_process
    a_logout_can_end_all_sessions
    failed_logins_take_equally_long_for_all_accounts
}

async fn put(address: SocketAddr, token: &str, body: &Value) -> raw::Response {
    raw::request(address, "PUT", "/api/user", Some(token), Some(body)).await
}

/// Returns the status of the response to a request with this token.
async fn status(address: SocketAddr, token: &str) -> u16 {
    raw::request(address, "GET", "/api/user", Some(token), None)
        .await
        .status
}

async fn login(address: SocketAddr, email: &str, password: &str) -> raw::Response {
    let body = json!({"email": email, "password": password});
    raw::request(address, "POST", "/api/login", None, Some(&body)).await
}

/// Logs in and returns the token.
async fn new_session(address: SocketAddr, email: &str, password: &str) -> String {
    let response = login(address, email, password).await;
    assert_eq!(response.status, 200, "{}", response.head);
    response.json()["token"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Returns a token like those of Flask, issued to the first user `lead` seconds after the current time.
fn flask_token(lead: i64) -> String {
    let tokens = Tokens::new(
        SecretKey::new(api::SECRET_KEY),
        Duration::from_hours(24),
        Arc::new(RecordedTime),
        Arc::new(RandomIds),
    );
    let now = RecordedTime.now().as_second();
    tokens.sign(&json!({"user_id": 1, "email": "a@example.com", "exp": now + 3600, "iat": now + lead}))
}

async fn new_credentials_require_the_current_password(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    for new in [
        json!({"email": "new@example.com"}),
        json!({"password": "another one", "bio": "b"}),
    ] {
        let missing = put(api.address, &alice, &new).await;
        assert_eq!(missing.status, 400);
        let required = json!({"current_password": ["Missing data for required field."]});
        assert_eq!(missing.json()["error"]["fields"], required);

        let mut wrong = new.clone();
        wrong["current_password"] = json!("password124");
        let wrong = put(api.address, &alice, &wrong).await;
        assert_eq!(
            (wrong.status, &wrong.json()["error"]["code"]),
            (403, &json!("wrong_password"))
        );
        assert_eq!(wrong.json()["error"]["message"], "Current password is incorrect");
    }
    let invalid = put(api.address, &alice, &json!({"email": "x", "password": "short"})).await;
    assert_eq!(
        invalid.json()["error"]["fields"],
        json!({
            "current_password": ["Missing data for required field."],
            "email": ["Not a valid email address."],
            "password": ["Shorter than minimum length 6."],
        })
    );
    for (current, expected) in [
        (json!(null), "Field may not be null."),
        (json!(1), "Not a valid string."),
    ] {
        let body = json!({"password": "another one", "current_password": current});
        let invalid = put(api.address, &alice, &body).await.json();
        assert_eq!(
            invalid["error"]["fields"],
            json!({"current_password": [expected]})
        );
    }
    let user = raw::request(api.address, "GET", "/api/user", Some(&alice), None)
        .await
        .json();
    assert_eq!(
        (&user["email"], &user["bio"]),
        (&json!("alice@example.com"), &json!(""))
    );
    assert_eq!(
        login(api.address, "alice@example.com", "password123")
            .await
            .status,
        200
    );

    let unneeded = json!({"bio": "b", "current_password": "is not verified"});
    assert_eq!(put(api.address, &alice, &unneeded).await.status, 200);
    let both = json!({
        "email": "new@example.com", "password": "another one", "current_password": "password123",
    });
    assert_eq!(put(api.address, &alice, &both).await.status, 200);
    assert_eq!(
        login(api.address, "alice@example.com", "another one")
            .await
            .status,
        401
    );
    assert_eq!(
        login(api.address, "new@example.com", "another one").await.status,
        200
    );
}

async fn new_credentials_end_all_other_sessions_in_every_process(store: Arc<dyn Store>) {
    let processes = [api::start(store.clone()).await, api::start(store).await];
    let [one, other] = processes.each_ref().map(|api| api.address);
    let registered = raw::register(one, "alice@example.com").await;
    let bob = raw::register(one, "bob@example.com").await;
    let mut email = "alice@example.com".to_owned();
    let mut password = "password123".to_owned();
    let mut kept = registered;
    // The first change ends these sessions.
    let mut flask = vec![flask_token(-60), flask_token(0)];
    for (new_email, new_password) in [(None, Some("password 2")), (Some("a@example.com"), None)] {
        let ended = [
            new_session(one, &email, &password).await,
            new_session(other, &email, &password).await,
        ];
        let ended: Vec<_> = ended.into_iter().chain(std::mem::take(&mut flask)).collect();
        for token in &ended {
            assert_eq!(status(other, token).await, 200);
        }
        let mut body = json!({"current_password": password});
        if let Some(new) = new_email {
            body["email"] = json!(new);
            new.clone_into(&mut email);
        }
        if let Some(new) = new_password {
            body["password"] = json!(new);
            new.clone_into(&mut password);
        }
        assert_eq!(put(one, &kept, &body).await.status, 200);
        for address in [one, other] {
            for token in &ended {
                let response = raw::request(address, "GET", "/api/user", Some(token), None).await;
                assert_eq!(response.status, 401);
                assert_eq!(response.json()["error"]["message"], "Invalid or expired token");
            }
            for token in [&kept, &bob, &flask_token(1)] {
                assert_eq!(status(address, token).await, 200);
            }
        }
        // The next change comes from another session.
        let next = new_session(other, &email, &password).await;
        assert_eq!(status(one, &next).await, 200);
        let again = json!({"password": password, "current_password": password});
        assert_eq!(put(other, &next, &again).await.status, 200);
        assert_eq!(
            status(one, &kept).await,
            401,
            "only the session of the last change is kept"
        );
        kept = next;
    }
    let same = json!({"email": email, "current_password": password});
    let session = new_session(one, &email, &password).await;
    assert_eq!(put(one, &kept, &same).await.status, 200);
    assert_eq!(status(one, &session).await, 200, "the address has not changed");
}

async fn a_logout_can_end_all_sessions(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let first = raw::register(api.address, "alice@example.com").await;
    let bob = raw::register(api.address, "bob@example.com").await;
    let logout = async |token: &str, query: &str| {
        let target = format!("/api/logout{query}");
        raw::request(api.address, "POST", &target, Some(token), None).await
    };
    let second = new_session(api.address, "alice@example.com", "password123").await;
    assert_eq!(logout(&first, "?all=perhaps").await.status, 400);
    assert_eq!(logout(&second, "?all=false").await.status, 200);
    assert_eq!(status(api.address, &first).await, 200);
    assert_eq!(status(api.address, &second).await, 401);
    for query in ["?all", "?all=true"] {
        let tokens = [
            new_session(api.address, "alice@example.com", "password123").await,
            new_session(api.address, "alice@example.com", "password123").await,
        ];
        let response = logout(&tokens[0], query).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.json()["message"], "Logged out successfully");
        for token in [&first, &tokens[0], &tokens[1], &flask_token(0)] {
            assert_eq!(status(api.address, token).await, 401);
        }
    }
    // The caller's token ends even if the clock of its issuer is ahead.
    let ahead = flask_token(3);
    assert_eq!(logout(&ahead, "?all").await.status, 200);
    assert_eq!(status(api.address, &ahead).await, 401);
    assert_eq!(status(api.address, &bob).await, 200);
    let again = new_session(api.address, "alice@example.com", "password123").await;
    assert_eq!(status(api.address, &again).await, 200);
}

/// Hashes of other schemes, which match no password. PBKDF2 has few rounds, because it is slow without optimisation.
const HASHES: [(&str, &str); 4] = [
    ("scrypt@example.com", "scrypt:32768:8:1$salt$00"),
    ("pbkdf2@example.com", "pbkdf2:sha256:1000$salt$00"),
    ("costlier@example.com", "pbkdf2:sha256:20000$salt$00"),
    ("broken@example.com", "no hash at all"),
];

async fn failed_logins_take_equally_long_for_all_accounts(store: Arc<dyn Store>) {
    let api = api::start(store.clone()).await;
    raw::register(api.address, "argon2@example.com").await;
    assert_eq!(
        login(api.address, "nobody@example.com", "wrong").await.status,
        401
    );
    // The costlier schemes appear while the service runs.
    for (email, hash) in HASHES {
        let user = NewUser {
            email: Email::parse(email).unwrap(),
            password_hash: PasswordHash(hash.to_owned()),
            name: "N".to_owned(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        store.insert_user(user).await.unwrap();
    }
    // The first failed login measures the new schemes.
    login(api.address, "nobody@example.com", "wrong").await;
    let others = [
        "argon2@example.com",
        "nobody@example.com",
        "nobody.else@example.com",
    ];
    let emails: Vec<&str> = HASHES.iter().map(|(email, _)| *email).chain(others).collect();
    let mut durations = vec![Vec::new(); emails.len()];
    for _ in 0..9 {
        for (email, durations) in emails.iter().zip(&mut durations) {
            let sent = Instant::now();
            assert_eq!(login(api.address, email, "wrong").await.status, 401);
            durations.push(sent.elapsed());
        }
    }
    // Compares the shortest duration of each account, because other work on the machine can only prolong a login.
    let shortest = || durations.iter().map(|durations| durations.iter().min().unwrap());
    let (fastest, slowest) = (shortest().min().unwrap(), shortest().max().unwrap());
    assert!(*slowest < fastest.mul_f64(1.2), "{emails:?} {durations:?}");
}
