//! Limits of requests, responses and connections, and requests that are rejected because of their heads.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pressroom::store::Store;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{over_both_stores, start};
use crate::support::{api, raw};

over_both_stores! {
    a_page_of_large_articles_ends_early
    a_large_article_has_a_page_of_its_own
}

/// Returns everything that the server sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let _reset = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    String::from_utf8(rest).unwrap()
}

async fn post(address: SocketAddr, token: &str, title: &str, body: &str) {
    let article = json!({"title": title, "body": body});
    let response = raw::request(address, "POST", "/api/articles/", Some(token), Some(&article)).await;
    assert_eq!(response.status, 201);
}

/// Returns the number of articles on each page, following the cursors.
async fn pages(address: SocketAddr, query: &str, total: usize) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let mut pages = Vec::new();
    let mut target = format!("/api/articles/?{query}");
    loop {
        let page = raw::request(address, "GET", &target, None, None).await;
        assert_eq!(page.status, 200);
        assert!(page.body.len() < 3 << 20, "{} bytes", page.body.len());
        let page = page.json();
        assert_eq!(page["total"], total);
        let articles = page["articles"].as_array().unwrap();
        for article in articles {
            assert!(
                seen.insert(article["slug"].to_string()),
                "listed twice: {}",
                article["slug"]
            );
        }
        pages.push(articles.len());
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(seen.len(), total);
            return pages;
        };
        target = format!("/api/articles/?{query}&cursor={cursor}");
    }
}

async fn a_page_of_large_articles_ends_early(store: Arc<dyn Store>) {
    let api = api::start(store).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    for i in 0..7 {
        // The size counts bytes, not characters.
        let text = if i % 2 == 0 {
            "x".repeat(600_000)
        } else {
            "ü".repeat(300_000)
        };
        post(api.address, &alice, &format!("Article {i}"), &text).await;
    }
    for query in ["per_page=100", "per_page=100&search=article", "per_page=3"] {
        assert_eq!(pages(api.address, query, 7).await, [3, 3, 1], "{query}");
    }
    assert_eq!(pages(api.address, "per_page=2", 7).await, [2, 2, 2, 1]);
    let second = raw::request(api.address, "GET", "/api/articles/?page=2&per_page=3", None, None).await;
    assert_eq!(second.json()["articles"].as_array().unwrap().len(), 3);
}

async fn a_large_article_has_a_page_of_its_own(store: Arc<dyn Store>) {
    let api = api::start(store.clone()).await;
    let alice = raw::register(api.address, "alice@example.com").await;
    let huge = pressroom::domain::NewArticle {
        slug: "huge".to_owned(),
        draft: pressroom::domain::Draft {
            title: "Huge".to_owned(),
            description: String::new(),
            body: "x".repeat(2_500_000),
        },
        author: pressroom::domain::UserId(1),
        created_at: "2026-11-22T10:00:00Z".parse().unwrap(),
    };
    post(api.address, &alice, "Small", "x").await;
    let task = crate::store::fixture::task(1, huge.created_at);
    store.insert_article(huge, task).await.unwrap();
    assert_eq!(pages(api.address, "per_page=100", 2).await, [1, 1]);
}

#[tokio::test]
async fn every_rejected_head_gets_the_error_envelope() {
    // Without telemetry, no response has a trace.
    telemetry::testing::telemetry();
    let running = start(|_| ()).await;
    let json = "Content-Type: application/json\r\n";
    let fields = "X-A: 1\r\n".repeat(101);
    let long_field = format!("X-A: {}\r\n", "x".repeat(70_000));
    let long_target = "x".repeat(70_000);
    let mut requests = vec![
        (
            format!(
                "POST /api/login HTTP/1.1\r\nHost: x\r\n{json}Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
            ),
            501,
            "unknown_transfer_coding",
        ),
        (
            format!(
                "POST /api/login HTTP/1.1\r\nHost: x\r\n{json}Transfer-Encoding: chunked,\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
            ),
            400,
            "bad_request",
        ),
        (
            format!(
                "POST /api/login HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"
            ),
            400,
            "bad_request",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"),
            431,
            "header_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\n{long_field}\r\n"),
            431,
            "header_too_large",
        ),
        (
            format!("GET /{long_target} HTTP/1.1\r\nHost: x\r\n\r\n"),
            414,
            "target_too_long",
        ),
    ];
    for malformed in [
        "GET /api/articles/?search=<b> HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /api/articles/?search=\"a\" HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET\r\n\r\n",
        "GET /api/health/live HTTP/3.0\r\nHost: x\r\n\r\n",
        "GET /api/health/live HTTP/1.1\r\nHost: x\r\nbad field: 1\r\n\r\n",
        "GET /api/health/live HTTP/1.1\r\n\r\n",
        "GET /api/health/live HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /api/health/live HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET /api/health/live HTTP/1.1\r\nHost: x/y\r\n\r\n",
    ] {
        requests.push((malformed.to_owned(), 400, "bad_request"));
    }
    for (request, status, code) in requests {
        let start: String = request.chars().take(80).collect();
        let response = raw::send(running.api.address, request.as_bytes()).await;
        assert_eq!(response.status, status, "{start:?}");
        assert_eq!(
            response.header("content-type"),
            Some("application/json"),
            "{start:?}"
        );
        assert_eq!(response.header("connection"), Some("close"), "{start:?}");
        let error = &response.json()["error"];
        assert_eq!(
            (&error["code"], &error["status_code"]),
            (&json!(code), &json!(status)),
            "{start:?}"
        );
        let trace = error["trace_id"].as_str().unwrap();
        assert!(
            response.header("traceresponse").unwrap().contains(trace),
            "{start:?}"
        );
    }
    let old = raw::send(running.api.address, b"GET /api/health/live HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200, "HTTP/1.0 needs no Host");
}

/// A proxy may send requests of several clients on one connection.
#[tokio::test]
async fn a_valid_request_before_an_ambiguous_one_is_not_affected() {
    let running = start(|_| ()).await;
    let credentials = r#"{"email":"ann@mail.example","password":"password123"}"#;
    let valid = format!(
        "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{credentials}\r\n0\r\n\r\n",
        credentials.len()
    );
    let ambiguous = valid.replace("Host: x\r\n", "Host: x\r\nContent-Length: 5\r\n");
    let mut stream = TcpStream::connect(running.api.address).await.unwrap();
    let together = format!("{valid}{ambiguous}{valid}");
    stream.write_all(together.as_bytes()).await.unwrap();
    let text = rest(&mut stream).await;
    assert_eq!(statuses(&text), ["401", "400"], "{text}");

    let mut stream = TcpStream::connect(running.api.address).await.unwrap();
    stream.write_all(valid.as_bytes()).await.unwrap();
    assert_eq!(raw::read_response(&mut stream, false).await.status, 401);
    stream.write_all(ambiguous.as_bytes()).await.unwrap();
    let text = rest(&mut stream).await;
    assert_eq!(statuses(&text), ["400"], "{text}");
}

fn statuses(responses: &str) -> Vec<&str> {
    let responses = responses.split("HTTP/1.1 ").skip(1);
    responses.map(|response| &response[..3]).collect()
}

#[tokio::test]
async fn an_announced_body_over_the_limit_is_rejected_at_once() {
    let running = start(|_| ()).await;
    for head in [
        "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
        "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n",
        "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n",
        "POST /api/articles/ HTTP/1.1\r\nHost: x\r\n",
        "PUT /api/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n",
        "PATCH /nowhere HTTP/1.1\r\nHost: x\r\n",
        "GET /api/articles/ HTTP/1.1\r\nHost: x\r\n",
    ] {
        for length in ["1048577", "99999999", "99999999999999999999999"] {
            let start = Instant::now();
            let mut stream = TcpStream::connect(running.api.address).await.unwrap();
            let request = format!("{head}Content-Length: {length}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let text = rest(&mut stream).await;
            assert!(text.starts_with("HTTP/1.1 413 "), "{request}{text}");
            assert!(text.to_lowercase().contains("connection: close\r\n"), "{text}");
            assert!(text.contains(r#""code":"body_too_large""#), "{text}");
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test]
async fn heads_and_idle_connections_have_separate_time_outs() {
    let running = start(|setup| {
        setup.limits.header_read_timeout = Duration::from_millis(100);
        setup.limits.keep_alive_timeout = Duration::from_millis(800);
    })
    .await;
    let mut idle = TcpStream::connect(running.api.address).await.unwrap();
    // Before the server's time-out begins, so that a slow test measures more than the time-out, not less.
    let start = Instant::now();
    idle.write_all(b"GET /api/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    raw::read_response(&mut idle, false).await;
    assert_eq!(rest(&mut idle).await, "");
    assert!(
        start.elapsed() >= Duration::from_millis(800),
        "{:?}",
        start.elapsed()
    );
    let mut half = TcpStream::connect(running.api.address).await.unwrap();
    half.write_all(b"GET /api/health/live HTTP/1.1\r\n")
        .await
        .unwrap();
    assert_eq!(rest(&mut half).await, "");
}

/// Bodies that are announced but never complete must not use up the memory.
#[tokio::test]
async fn large_bodies_that_never_complete_do_not_keep_out_small_ones() {
    let running = start(|_| ()).await;
    let address = running.api.address;
    let mut responses = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: 1000000\r\n\r\n{}", "x".repeat(100_000));
        stream.write_all(request.as_bytes()).await.unwrap();
        responses.spawn(async move { raw::read_response(&mut stream, false).await });
    }
    // Four bodies fit into the memory; the others are rejected, some of them after a wait.
    for _ in 0..20 {
        let response = timeout(Duration::from_secs(20), responses.join_next()).await;
        let response = response.expect("too few are rejected").unwrap().unwrap();
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, Some("1"))
        );
    }
    let alice = raw::register(address, "alice@example.com").await;
    // Nor large ones that arrive immediately, for which the oldest of the others make room.
    let article = json!({"title": "Large", "body": "x".repeat(100_000)});
    for _ in 0..3 {
        let created = raw::request(address, "POST", "/api/articles/", Some(&alice), Some(&article)).await;
        assert_eq!(created.status, 201);
    }
}
