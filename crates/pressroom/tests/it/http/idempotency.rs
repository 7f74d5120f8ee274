//! Creation of articles with an `Idempotency-Key`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pressroom::store::Store;
use serde_json::{Value, json};

use super::over_both_stores;
use crate::support::{api, postgres::Database, raw};

over_both_stores! {
    a_repeated_request_gets_the_first_response
    a_different_request_with_the_same_key_is_rejected
    each_user_has_separate_keys
    concurrent_requests_with_one_key_create_one_article
    concurrent_different_requests_with_one_key_create_one_article
    a_failed_request_may_be_corrected_with_the_same_key
    an_invalid_key_is_rejected
}

async fn create(address: SocketAddr, token: &str, key: &str, body: &Value) -> raw::Response {
    let fields = [("Idempotency-Key", key)];
    raw::request_with(
        address,
        "POST",
        "/api/articles/",
        Some(token),
        &fields,
        Some(body),
    )
    .await
}

async fn total(address: SocketAddr) -> Value {
    raw::request(address, "GET", "/api/articles/", None, None)
        .await
        .json()["total"]
        .clone()
}

async fn a_repeated_request_gets_the_first_response(store: Arc<dyn Store>) {
    let api = api::start(store.clone()).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let body = json!({"title": "Once", "description": "d", "body": "x"});
    let first = create(api.address, &alice, "key-1", &body).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.header("idempotency-replayed"), None);
    // The same request in different JSON syntax.
    let same = "{\"body\":\"\\u0078\",  \"title\":\"Once\", \"description\":\"d\"}";
    let again = format!(
        "POST /api/articles/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice}\r\nIdempotency-Key: key-1\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{same}",
        same.len()
    );
    // The first response is repeated even after the article or its author changes, and after the article is
    // deleted.
    let target = first.header("location").unwrap().to_owned();
    let changes = [
        ("GET", target.as_str(), None),
        ("PUT", &target, Some(json!({"title": "Changed"}))),
        (
            "PUT",
            "/api/user",
            Some(
                json!({"name": "Changed", "email": "changed@example.com", "current_password": "password123"}),
            ),
        ),
        ("DELETE", &target, None),
    ];
    for (method, target, change) in changes {
        let changed = raw::request(api.address, method, target, Some(&alice), change.as_ref()).await;
        assert!(changed.status < 300, "{method} {target}");
        let repeated = raw::send(api.address, again.as_bytes()).await;
        assert_eq!(repeated.status, 201);
        assert_eq!(repeated.body, first.body);
        assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
        for field in ["location", "etag", "content-type"] {
            assert_eq!(repeated.header(field), first.header(field), "{field}");
        }
    }
    assert_eq!(total(api.address).await, 0);
    // One task for the creation and one for the update.
    assert_eq!(store.outbox_backlog().await.unwrap().tasks, 2);
}

async fn a_different_request_with_the_same_key_is_rejected(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let body = json!({"title": "Once", "body": "x"});
    assert_eq!(create(api.address, &alice, "key", &body).await.status, 201);
    for other in [
        json!({"title": "Twice", "body": "x"}),
        json!({"title": "Once", "body": "y"}),
        json!({"title": "Once", "body": "x", "description": "d"}),
    ] {
        let rejected = create(api.address, &alice, "key", &other).await;
        assert_eq!(rejected.status, 422);
        assert_eq!(rejected.json()["error"]["code"], "idempotency_key_reused");
    }
    assert_eq!(
        create(api.address, &alice, "Key", &body).await.status,
        201,
        "keys are case-sensitive"
    );
    assert_eq!(total(api.address).await, 2);
}

async fn each_user_has_separate_keys(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let bob = raw::register(api.address, "bob@example.com").await;
    let alice_response = create(api.address, &alice, "key", &json!({"title": "Hers", "body": "x"})).await;
    let bob_response = create(api.address, &bob, "key", &json!({"title": "His", "body": "x"})).await;
    assert_eq!((alice_response.status, bob_response.status), (201, 201));
    assert_eq!(bob_response.json()["author"]["email"], "bob@example.com");
    assert_eq!(total(api.address).await, 2);
}

async fn concurrent_requests_with_one_key_create_one_article(store: Arc<dyn Store>) {
    let api = api::start(store.clone()).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let body = json!({"title": "Once", "body": "x"});
    let responses = join_all((0..64).map(|_| create(api.address, &alice, "key", &body))).await;
    let replayed = responses
        .iter()
        .filter(|response| response.header("idempotency-replayed").is_some());
    assert_eq!(replayed.count(), 63);
    let mut bodies = BTreeSet::new();
    for response in responses {
        assert_eq!(
            response.status,
            201,
            "{}",
            String::from_utf8_lossy(&response.body)
        );
        bodies.insert(response.body);
    }
    assert_eq!(bodies.len(), 1, "all responses are the same");
    assert_eq!(total(api.address).await, 1);
    assert_eq!(store.outbox_backlog().await.unwrap().tasks, 1);
}

async fn concurrent_different_requests_with_one_key_create_one_article(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let responses = join_all((0..16).map(async |client| {
        let body = json!({"title": format!("By {client}"), "body": "x"});
        create(api.address, &alice, "key", &body).await.status
    }))
    .await;
    let created = responses.iter().filter(|status| **status == 201).count();
    let rejected = responses.iter().filter(|status| **status == 422).count();
    assert_eq!((created, rejected), (1, 15), "{responses:?}");
    assert_eq!(total(api.address).await, 1);
}

async fn a_failed_request_may_be_corrected_with_the_same_key(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let invalid = create(api.address, &alice, "key", &json!({"title": ""})).await;
    assert_eq!(invalid.status, 400);
    let corrected = create(api.address, &alice, "key", &json!({"title": "Now", "body": "x"})).await;
    assert_eq!(corrected.status, 201);
}

/// The trigger has the effect of another request that always holds the key but never completes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the trigger is not a statement of the service"
)]
async fn a_request_that_loses_every_race_for_its_key_waits_between_attempts() {
    let database = Database::migrated().await;
    let trigger = "
        CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER lose BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION lose()";
    database.client().await.batch_execute(trigger).await.unwrap();
    let api = api::start(Arc::new(database.store())).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let began = Instant::now();
    let lost = create(api.address, &alice, "key", &json!({"title": "Once", "body": "x"})).await;
    assert_eq!(lost.status, 503);
    assert!(lost.header("retry-after").is_some());
    assert!(
        began.elapsed() >= Duration::from_millis(50),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(total(api.address).await, 0);
}

async fn an_invalid_key_is_rejected(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let body = json!({"title": "Never", "body": "x"});
    for key in ["", &"x".repeat(256), "ключ", "a\tb", "a\r\nIdempotency-Key: b"] {
        let rejected = create(api.address, &alice, key, &body).await;
        assert_eq!(rejected.status, 400, "{key:?}");
        assert_eq!(rejected.json()["error"]["code"], "invalid_idempotency_key");
    }
    let fields = [("Idempotency-Key", "")];
    let anonymous =
        raw::request_with(api.address, "POST", "/api/articles/", None, &fields, Some(&body)).await;
    assert_eq!(anonymous.status, 401, "authentication comes first");
    let longest = "x".repeat(255);
    assert_eq!(create(api.address, &alice, &longest, &body).await.status, 201);
    assert_eq!(total(api.address).await, 1);
}
