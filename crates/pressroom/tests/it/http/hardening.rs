//! CORS, security headers and connection limits.

use std::net::SocketAddr;

use pressroom::api::AllowedOrigins;
use serde_json::json;

use super::start;
use crate::support::raw;

const APP: &str = "https://app.example.com";

async fn ask(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)]) -> raw::Response {
    raw::request_with(address, method, target, None, fields, None).await
}

fn cors_fields(response: &raw::Response) -> Vec<String> {
    let lines = response.head.lines().map(str::to_ascii_lowercase);
    lines.filter(|line| line.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn no_origin_is_allowed_by_default() {
    let running = start(|_| ()).await;
    let preflight = [("Origin", APP), ("Access-Control-Request-Method", "POST")];
    for method in ["GET", "OPTIONS"] {
        let response = ask(running.api.address, method, "/api/articles/", &preflight).await;
        assert_eq!(response.status, 200);
        assert!(cors_fields(&response).is_empty(), "{}", response.head);
        assert!(!response.lists("vary", "Origin"), "{}", response.head);
    }
}

#[tokio::test]
async fn only_an_allowed_origin_may_read_responses_and_errors() {
    let allowed: AllowedOrigins = APP.parse().unwrap();
    let running = start(|setup| setup.origins = allowed).await;
    let address = running.api.address;
    for (target, status) in [("/api/articles/", 200), ("/api/user", 401), ("/nowhere", 404)] {
        let response = ask(address, "GET", target, &[("Origin", APP)]).await;
        assert_eq!(response.status, status);
        assert_eq!(
            response.header("access-control-allow-origin"),
            Some(APP),
            "{target}"
        );
        assert_eq!(response.header("access-control-allow-credentials"), None);
        let readable = response.header("access-control-expose-headers").unwrap();
        assert!(
            readable.contains("ETag") && readable.contains("traceresponse"),
            "{readable}"
        );
        assert!(response.lists("vary", "Origin"), "{}", response.head);
        for other in [
            "https://app.example.com.evil.example",
            "http://app.example.com",
            "https://APP.example.com",
            "null",
        ] {
            let response = ask(address, "GET", target, &[("Origin", other)]).await;
            assert_eq!(response.status, status);
            assert!(cors_fields(&response).is_empty(), "{other}: {}", response.head);
            assert!(response.lists("vary", "Origin"), "{}", response.head);
        }
    }
}

#[tokio::test]
async fn a_preflight_returns_cors_headers_and_a_plain_options_request_returns_allow() {
    let allowed: AllowedOrigins = APP.parse().unwrap();
    let running = start(|setup| setup.origins = allowed).await;
    let address = running.api.address;
    let preflight = |origin| {
        [
            ("Origin", origin),
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "authorization,if-match"),
        ]
    };
    let response = ask(address, "OPTIONS", "/api/articles/x", &preflight(APP)).await;
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    assert!(
        response
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    let fields = response
        .header("access-control-allow-headers")
        .unwrap()
        .to_ascii_lowercase();
    for field in [
        "authorization",
        "content-type",
        "if-match",
        "idempotency-key",
        "traceparent",
    ] {
        assert!(fields.split(", ").any(|allowed| allowed == field), "{field}");
    }
    assert_eq!(response.header("access-control-max-age"), Some("600"));
    assert!(response.lists("vary", "Origin"), "{}", response.head);

    let rejected = ask(
        address,
        "OPTIONS",
        "/api/articles/x",
        &preflight("https://evil.example"),
    )
    .await;
    assert!(cors_fields(&rejected).is_empty(), "{}", rejected.head);
    let plain = ask(address, "OPTIONS", "/api/articles/x", &[("Origin", APP)]).await;
    assert_eq!(plain.status, 200);
    assert!(plain.header("allow").unwrap().contains("DELETE"));
}

#[tokio::test]
async fn a_wildcard_allows_every_origin_without_credentials() {
    let running = start(|setup| setup.origins = "*".parse().unwrap()).await;
    let response = ask(running.api.address, "GET", "/api/articles/", &[("Origin", APP)]).await;
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
    let direct = ask(running.api.address, "GET", "/api/articles/", &[]).await;
    assert!(cors_fields(&direct).is_empty());
}

#[tokio::test]
async fn responses_have_security_headers_and_no_server_name() {
    let running = start(|_| ()).await;
    for target in [
        "/api/docs",
        "/api/openapi.json",
        "/api/articles/",
        "/api/user",
        "/nowhere",
    ] {
        let response = ask(running.api.address, "GET", target, &[]).await;
        assert_eq!(response.header("server"), None, "{target}");
        assert_eq!(response.header("x-powered-by"), None, "{target}");
        assert_eq!(
            response.header("x-content-type-options"),
            Some("nosniff"),
            "{target}"
        );
    }
    let page = ask(running.api.address, "GET", "/api/docs", &[]).await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("connect-src 'self'")
            && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
}

#[tokio::test]
async fn only_articles_and_documentation_may_be_stored_by_caches() {
    let running = start(|setup| setup.origins = APP.parse().unwrap()).await;
    let address = running.api.address;
    let token = raw::register(address, "alice@example.com").await;
    let article = json!({"title": "Cached", "body": "x"});
    let created = raw::request(address, "POST", "/api/articles/", Some(&token), Some(&article)).await;
    let target = created.header("location").unwrap();
    let favorite = format!("{target}/favorite");
    let account = json!({"email": "bob@example.com", "password": "password123", "name": "Bob"});
    let credentials = json!({"email": "bob@example.com", "password": "password123"});
    let (too_large, empty) = (json!({"email": "x".repeat(1 << 20)}), json!({}));
    for (method, target, body, status, caching) in [
        ("GET", "/api/articles/", None, 200, "no-cache"),
        ("GET", target, None, 200, "no-cache"),
        ("HEAD", target, None, 200, "no-cache"),
        ("GET", "/api/docs", None, 200, "no-cache"),
        ("GET", "/api/openapi.json", None, 200, "no-cache"),
        ("POST", "/api/articles/", Some(&article), 201, "no-store"),
        ("PUT", target, Some(&article), 200, "no-store"),
        ("POST", &favorite, None, 200, "no-store"),
        ("DELETE", &favorite, None, 200, "no-store"),
        ("POST", "/api/register", Some(&account), 201, "no-store"),
        ("POST", "/api/register", Some(&account), 409, "no-store"),
        ("POST", "/api/login", Some(&credentials), 200, "no-store"),
        ("POST", "/api/login", Some(&empty), 400, "no-store"),
        ("POST", "/api/login", Some(&too_large), 413, "no-store"),
        ("GET", "/api/user", None, 200, "no-store"),
        ("PUT", "/api/user", Some(&empty), 200, "no-store"),
        ("GET", "/api/health", None, 200, "no-store"),
        ("GET", "/api/health/live", None, 200, "no-store"),
        ("GET", "/api/articles", None, 308, "no-store"),
        ("GET", "/", None, 307, "no-store"),
        ("GET", "/api/articles/missing", None, 404, "no-store"),
        ("GET", "/api/articles/?cursor=x", None, 400, "no-store"),
        ("GET", "/nowhere", None, 404, "no-store"),
        ("PATCH", "/api/user", None, 405, "no-store"),
        ("OPTIONS", "/api/user", None, 200, "no-store"),
        ("DELETE", target, None, 204, "no-store"),
        ("POST", "/api/logout", None, 200, "no-store"),
        ("GET", "/api/user", None, 401, "no-store"),
    ] {
        let response = raw::request(address, method, target, Some(&token), body).await;
        assert_eq!(response.status, status, "{method} {target}");
        let head = &response.head;
        assert_eq!(response.header("cache-control"), Some(caching), "{head}");
        assert!(response.lists("vary", "Authorization"), "{head}");
        assert!(response.lists("vary", "Accept-Encoding"), "{head}");
    }
    let preflight = [("Origin", APP), ("Access-Control-Request-Method", "PUT")];
    let response = ask(address, "OPTIONS", "/api/user", &preflight).await;
    assert_eq!(
        (response.status, response.header("cache-control")),
        (204, Some("no-store"))
    );
}
