//! CORS, security headers and connection limits.

use std::{net::SocketAddr, sync::Arc};

use pressroom::{api::AllowedOrigins, health::TaskQueue};

use super::{TestStore, on_sqlite};
use crate::support::{
    api::{self, Api, RecordedTime, Setup},
    raw,
    sqlite::File,
};

const APP: &str = "https://app.example.com";

struct Running {
    api: Api,
    _fixture: TestStore<File>,
}

async fn start(change: impl FnOnce(&mut Setup)) -> Running {
    let fixture = on_sqlite();
    let clock = Arc::new(RecordedTime);
    Running {
        api: api::start_with_setup(fixture.store.clone(), TaskQueue::InProcess, clock, change).await,
        _fixture: fixture,
    }
}

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
        assert_eq!(response.header("vary"), None);
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
        assert_eq!(response.header("vary"), Some("Origin"));
        for other in [
            "https://app.example.com.evil.example",
            "http://app.example.com",
            "https://APP.example.com",
            "null",
        ] {
            let response = ask(address, "GET", target, &[("Origin", other)]).await;
            assert_eq!(response.status, status);
            assert!(cors_fields(&response).is_empty(), "{other}: {}", response.head);
            assert_eq!(response.header("vary"), Some("Origin"));
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
    assert_eq!(response.header("vary"), Some("Origin"));

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
        policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"),
        "{policy}"
    );
}
