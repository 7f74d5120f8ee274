//! Behaviour of the HTTP contract that the recorded requests do not cover.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use pressroom::{
    accounts::{SecretKey, Tokens},
    ids::RandomIds,
};
use serde_json::{Value, json};

use super::start;
use crate::support::{
    api::{self, RecordedTime},
    raw,
};

async fn create(address: SocketAddr, token: &str, title: &str) -> Value {
    let body = json!({"title": title, "body": "x"});
    let response = raw::request(address, "POST", "/api/articles/", Some(token), Some(&body)).await;
    assert_eq!(response.status, 201);
    response.json()
}

#[tokio::test]
async fn all_validation_errors_are_reported_at_once() {
    let running = start(|_| ()).await;
    let body = json!({"email": "nobody", "password": "12345", "name": "", "admin": true});
    let response = raw::request(running.api.address, "POST", "/api/register", None, Some(&body)).await;
    assert_eq!(response.status, 400);
    let error = &response.json()["error"];
    assert_eq!(error["code"], "validation_error");
    assert_eq!(
        error["fields"],
        json!({
            "email": ["Not a valid email address."],
            "password": ["Shorter than minimum length 6."],
            "name": ["Length must be between 1 and 255."],
            "admin": ["Unknown field."],
        })
    );
}

#[tokio::test]
async fn lengths_count_characters() {
    let running = start(|_| ()).await;
    let alice = raw::register(running.api.address, "alice@example.com").await;
    let update = |name: String| json!({"name": name});
    for (name, status) in [("ü".repeat(255), 200), ("ü".repeat(256), 400)] {
        let response = raw::request(
            running.api.address,
            "PUT",
            "/api/user",
            Some(&alice),
            Some(&update(name)),
        )
        .await;
        assert_eq!(response.status, status);
    }
}

#[tokio::test]
async fn a_profile_update_is_stored_and_changes_the_credentials() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let alice = raw::register(address, "alice@example.com").await;
    raw::register(address, "bob@example.com").await;
    let update = json!({
        "email": "Alice.B@example.com", "password": "new password", "current_password": "password123",
        "bio": "Writes.", "image": "https://example.com/a.png",
    });
    let response = raw::request(address, "PUT", "/api/user", Some(&alice), Some(&update)).await;
    assert_eq!(response.status, 200);
    let user = raw::request(address, "GET", "/api/user", Some(&alice), None)
        .await
        .json();
    assert_eq!(
        (&user["email"], &user["bio"]),
        (&json!("Alice.B@example.com"), &json!("Writes."))
    );
    for (email, password, status) in [
        ("alice.b@EXAMPLE.com", "new password", 200),
        ("alice.b@example.com", "password123", 401),
        ("alice@example.com", "new password", 401),
    ] {
        let credentials = json!({"email": email, "password": password});
        let response = raw::request(address, "POST", "/api/login", None, Some(&credentials)).await;
        assert_eq!(response.status, status, "{email}");
    }
    let taken = json!({"email": "BOB@example.com", "current_password": "new password"});
    let response = raw::request(address, "PUT", "/api/user", Some(&alice), Some(&taken)).await;
    assert_eq!(
        (response.status, response.json()["error"]["message"].as_str()),
        (409, Some("Email already registered"))
    );
}

#[tokio::test]
async fn a_token_without_jti_can_be_logged_out() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let token = raw::register(address, "alice@example.com").await;
    // Flask issues tokens with the same claims except `jti`.
    let day = Duration::from_hours(24);
    let tokens = Tokens::new(
        SecretKey::new(api::SECRET_KEY),
        day,
        Arc::new(RecordedTime),
        Arc::new(RandomIds),
    );
    let flask_token = tokens.sign(
        &json!({"user_id": 1, "email": "alice@example.com", "exp": 1_795_333_447, "iat": 1_795_329_847}),
    );
    let status = async |token: &str| {
        raw::request(address, "GET", "/api/user", Some(token), None)
            .await
            .status
    };
    assert_eq!(status(&flask_token).await, 200);
    assert_eq!(
        raw::request(address, "POST", "/api/logout", Some(&flask_token), None)
            .await
            .status,
        200
    );
    assert_eq!(status(&flask_token).await, 401);
    assert_eq!(
        status(&format!("{flask_token}=")).await,
        401,
        "padding does not make a different token"
    );
    assert_eq!(status(&token).await, 200, "the other session stays valid");
}

#[tokio::test]
async fn a_body_over_the_limit_is_rejected_with_content_length_and_chunked() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let alice = raw::register(address, "alice@example.com").await;
    let body = json!({"title": "Long", "body": "x".repeat(1 << 20)});
    let response = raw::request(address, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
    assert_eq!(
        (response.status, response.header("connection")),
        (413, Some("close"))
    );
    assert_eq!(response.json()["error"]["code"], "body_too_large");

    let chunk = format!("{:x}\r\n{}\r\n", 1 << 19, "x".repeat(1 << 19));
    let chunked = format!(
        "POST /api/articles/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(3)
    );
    assert_eq!(raw::send(address, chunked.as_bytes()).await.status, 413);

    let anonymous = raw::request(address, "POST", "/api/articles/", None, Some(&body)).await;
    assert_eq!(anonymous.status, 413, "the size is checked before authentication");
}

#[tokio::test]
async fn every_response_carries_its_trace_id() {
    // Without telemetry, no response has a trace.
    telemetry::testing::telemetry();
    let running = start(|_| ()).await;
    let too_long = json!({"title": "x".repeat(2 << 20)});
    for (method, target, body, status) in [
        ("GET", "/api/health", None, 200),
        ("GET", "/api/docs", None, 200),
        ("GET", "/api/openapi.json", None, 200),
        ("GET", "/api/articles", None, 308),
        ("GET", "/", None, 307),
        ("GET", "/nowhere", None, 404),
        ("PATCH", "/api/user", None, 405),
        ("QUERY", "/api/articles/", None, 405),
        ("OPTIONS", "/api/user", None, 200),
        ("POST", "/api/login", Some(&json!("no object")), 400),
        ("POST", "/api/login", Some(&too_long), 413),
        ("GET", "/<", None, 400),
    ] {
        let response = raw::request(running.api.address, method, target, None, body).await;
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(
            response.header("traceresponse").map(str::len),
            Some(55),
            "{target}"
        );
        assert_eq!(
            response.header("x-content-type-options"),
            Some("nosniff"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn the_response_to_a_wrong_method_lists_the_allowed_methods() {
    let running = start(|_| ()).await;
    for (method, target, status, allow) in [
        ("PATCH", "/api/user", 405, "GET,HEAD,PUT"),
        ("OPTIONS", "/api/user", 200, "GET,HEAD,PUT"),
        ("POST", "/api/articles/x", 405, "GET,HEAD,PUT,DELETE"),
        ("GET", "/api/logout", 405, "POST"),
        ("POST", "/", 405, "GET,HEAD"),
    ] {
        let response = raw::request(running.api.address, method, target, None, None).await;
        assert_eq!(response.status, status, "{method} {target}");
        let mut allowed: Vec<_> = response.header("allow").unwrap().split(',').collect();
        let mut expected: Vec<_> = allow.split(',').collect();
        allowed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(allowed, expected, "{method} {target}");
    }
}

#[tokio::test]
async fn a_redirect_keeps_the_query_and_does_not_repeat_the_host() {
    let running = start(|_| ()).await;
    let request = b"GET /api/articles?page=2&search=%F0%9F%98%80 HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let response = raw::send(running.api.address, request).await;
    assert_eq!(response.status, 308);
    assert_eq!(
        response.header("location"),
        Some("/api/articles/?page=2&search=%F0%9F%98%80")
    );
}

#[tokio::test]
async fn the_root_leads_to_the_documentation() {
    let running = start(|_| ()).await;
    for method in ["GET", "HEAD"] {
        let response = raw::request(running.api.address, method, "/", None, None).await;
        assert_eq!(response.status, 307, "{method}");
        assert_eq!(response.header("location"), Some("/api/docs"), "{method}");
    }
}

/// The fixed clock gives all articles the same time, so only their ids determine the order.
#[tokio::test]
async fn following_cursors_returns_each_article_once() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let alice = raw::register(address, "alice@example.com").await;
    for i in 0..25 {
        create(address, &alice, &format!("Article {i}")).await;
    }
    let mut seen = BTreeSet::new();
    let mut target = "/api/articles/?per_page=7".to_owned();
    let mut pages = 0;
    loop {
        let page = raw::request(address, "GET", &target, None, None).await.json();
        assert_eq!(page["total"], 25);
        for article in page["articles"].as_array().unwrap() {
            assert!(
                seen.insert(article["slug"].to_string()),
                "listed twice: {article}"
            );
        }
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        target = format!("/api/articles/?per_page=7&cursor={cursor}");
    }
    assert_eq!((seen.len(), pages), (25, 4));
}

#[tokio::test]
async fn favorited_is_reported_per_caller() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let alice = raw::register(address, "alice@example.com").await;
    let bob = raw::register(address, "bob@example.com").await;
    let article = create(address, &alice, "Liked").await;
    let target = format!("/api/articles/{}", article["slug"].as_str().unwrap());
    for _ in 0..2 {
        let liked = raw::request(address, "POST", &format!("{target}/favorite"), Some(&bob), None)
            .await
            .json();
        assert_eq!(
            (&liked["favorited"], &liked["favorites_count"]),
            (&json!(true), &json!(1))
        );
    }
    for (token, favorited) in [(Some(&bob), true), (Some(&alice), false), (None, false)] {
        let seen = raw::request(address, "GET", &target, token.map(String::as_str), None)
            .await
            .json();
        assert_eq!(
            (&seen["favorited"], &seen["favorites_count"]),
            (&json!(favorited), &json!(1))
        );
        let list = raw::request(address, "GET", "/api/articles/", token.map(String::as_str), None)
            .await
            .json();
        assert_eq!(list["articles"][0]["favorited"], json!(favorited));
    }
    let deleted = raw::request(address, "DELETE", &target, Some(&alice), None).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
}

#[tokio::test]
async fn timestamps_have_six_digits_of_fraction_and_end_in_z() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let alice = raw::register(address, "alice@example.com").await;
    let article = create(address, &alice, "Dated").await;
    assert_eq!(article["created_at"], "2026-11-22T06:44:20.000000Z");
    assert_eq!(article["updated_at"], "2026-11-22T06:44:20.000000Z");
    assert_eq!(article["slug"], "dated-1795329860");
    let user = raw::request(address, "GET", "/api/user", Some(&alice), None).await;
    assert_eq!(user.json()["created_at"], "2026-11-22T06:44:20.000000Z");
    // The second version is a microsecond later, because the clock stands still.
    let target = format!("/api/articles/{}", article["slug"].as_str().unwrap());
    let update = json!({"body": "y"});
    let updated = raw::request(address, "PUT", &target, Some(&alice), Some(&update)).await;
    assert_eq!(updated.json()["updated_at"], "2026-11-22T06:44:20.000001Z");
}

#[tokio::test]
async fn a_byte_order_mark_before_the_body_is_ignored() {
    let running = start(|_| ()).await;
    let account = r#"{"email": "ann@example.com", "password": "password123", "name": "Ann"}"#;
    for (target, body, status) in [
        ("/api/register", format!("\u{feff}{account}"), 201),
        ("/api/register", format!("\u{feff}\u{feff}{account}"), 400),
        ("/api/login", "\u{feff}{}".to_owned(), 400),
        ("/api/login", "\u{feff}".to_owned(), 400),
    ] {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let response = raw::send(running.api.address, request.as_bytes()).await;
        assert_eq!(response.status, status, "{target} {body:?}");
    }
}

#[tokio::test]
async fn the_response_to_many_invalid_fields_is_bounded() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let alice = raw::register(address, "alice@example.com").await;
    let many: serde_json::Map<_, _> = (0..50_000).map(|i| (format!("field{i}"), json!(0))).collect();
    let long: serde_json::Map<_, _> = (0..6).map(|i| ("\u{1}".repeat(20_000 + i), json!(0))).collect();
    let longest = serde_json::Map::from_iter([("a\u{1}".repeat(100_000), json!(0))]);
    // The client may choose the name under which the omission is reported.
    let mut schema = serde_json::Map::from_iter([("_schema".to_owned(), json!(0))]);
    schema.extend(many.clone());
    let omitted = "Further errors are omitted.";
    for (method, target) in [
        ("POST", "/api/login"),
        ("POST", "/api/articles/"),
        ("PUT", "/api/user"),
    ] {
        for (fields, expected) in [
            (&many, json!([omitted])),
            (&long, json!([omitted])),
            (&longest, json!([omitted])),
            (&schema, json!(["Unknown field.", omitted])),
        ] {
            let body = Value::Object(fields.clone());
            let response = raw::request(address, method, target, Some(&alice), Some(&body)).await;
            assert_eq!(response.status, 400, "{method} {target}");
            assert!(response.body.len() < 64 << 10, "{}", response.body.len());
            let fields = response.json()["error"]["fields"].clone();
            assert_eq!(fields["_schema"], expected);
            if target == "/api/login" {
                for required in ["email", "password"] {
                    assert_eq!(fields[required], json!(["Missing data for required field."]));
                }
            }
        }
    }
}
