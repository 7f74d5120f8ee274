//! What protects the service from strangers, and browsers from each other's pages.

use std::{net::SocketAddr, sync::Arc};

use pressroom::{api::AllowedOrigins, health::Queue};

use super::{Kept, on_sqlite};
use crate::support::{
    api::{self, Api, RecordedTime, Setup},
    raw,
    sqlite::File,
};

const APP: &str = "https://app.example.com";

struct Running {
    api: Api,
    _kept: Kept<File>,
}

async fn start(change: impl FnOnce(&mut Setup)) -> Running {
    let kept = on_sqlite();
    let clock = Arc::new(RecordedTime);
    Running {
        api: api::start_as(kept.store.clone(), Queue::InProcess, clock, change).await,
        _kept: kept,
    }
}

async fn ask(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)]) -> raw::Answer {
    raw::request_with(address, method, target, None, fields, None).await
}

fn sharing(answer: &raw::Answer) -> Vec<String> {
    let lines = answer.head.lines().map(str::to_ascii_lowercase);
    lines.filter(|line| line.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn nothing_is_shared_with_other_origins_unless_they_are_named() {
    let running = start(|_| ()).await;
    let preflight = [("Origin", APP), ("Access-Control-Request-Method", "POST")];
    for method in ["GET", "OPTIONS"] {
        let answer = ask(running.api.address, method, "/api/articles/", &preflight).await;
        assert_eq!(answer.status, 200);
        assert!(sharing(&answer).is_empty(), "{}", answer.head);
        assert_eq!(answer.header("vary"), None);
    }
}

#[tokio::test]
async fn a_named_origin_may_read_answers_and_refusals_and_others_may_not() {
    let allowed = AllowedOrigins::parse(APP).unwrap();
    let running = start(|setup| setup.origins = allowed).await;
    let address = running.api.address;
    for (target, status) in [("/api/articles/", 200), ("/api/user", 401), ("/nowhere", 404)] {
        let answer = ask(address, "GET", target, &[("Origin", APP)]).await;
        assert_eq!(answer.status, status);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(APP),
            "{target}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let readable = answer.header("access-control-expose-headers").unwrap();
        assert!(
            readable.contains("ETag") && readable.contains("traceresponse"),
            "{readable}"
        );
        assert_eq!(answer.header("vary"), Some("Origin"));
        for other in [
            "https://app.example.com.evil.example",
            "http://app.example.com",
            "https://APP.example.com",
            "null",
        ] {
            let answer = ask(address, "GET", target, &[("Origin", other)]).await;
            assert_eq!(answer.status, status);
            assert!(sharing(&answer).is_empty(), "{other}: {}", answer.head);
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_and_a_plain_options_still_tells_the_methods() {
    let allowed = AllowedOrigins::parse(APP).unwrap();
    let running = start(|setup| setup.origins = allowed).await;
    let address = running.api.address;
    let preflight = |origin| {
        [
            ("Origin", origin),
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "authorization,if-match"),
        ]
    };
    let answer = ask(address, "OPTIONS", "/api/articles/x", &preflight(APP)).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    let fields = answer
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
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(answer.header("vary"), Some("Origin"));

    let refused = ask(
        address,
        "OPTIONS",
        "/api/articles/x",
        &preflight("https://evil.example"),
    )
    .await;
    assert!(sharing(&refused).is_empty(), "{}", refused.head);
    let plain = ask(address, "OPTIONS", "/api/articles/x", &[("Origin", APP)]).await;
    assert_eq!(plain.status, 200);
    assert!(plain.header("allow").unwrap().contains("DELETE"));
}

#[tokio::test]
async fn a_star_lets_every_page_read_without_credentials() {
    let running = start(|setup| setup.origins = AllowedOrigins::parse("*").unwrap()).await;
    let answer = ask(running.api.address, "GET", "/api/articles/", &[("Origin", APP)]).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let direct = ask(running.api.address, "GET", "/api/articles/", &[]).await;
    assert!(sharing(&direct).is_empty());
}

#[tokio::test]
async fn no_answer_names_the_server_and_pages_load_nothing_from_elsewhere() {
    let running = start(|_| ()).await;
    for target in [
        "/api/docs",
        "/api/openapi.json",
        "/api/articles/",
        "/api/user",
        "/nowhere",
    ] {
        let answer = ask(running.api.address, "GET", target, &[]).await;
        assert_eq!(answer.header("server"), None, "{target}");
        assert_eq!(answer.header("x-powered-by"), None, "{target}");
        assert_eq!(
            answer.header("x-content-type-options"),
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
