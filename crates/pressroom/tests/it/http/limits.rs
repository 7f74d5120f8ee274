//! Limits of requests, responses and connections, and requests that are refused because of their heads.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pressroom::{health::TaskQueue, store::Store};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{on_sqlite, over_both_stores};
use crate::support::{
    api::{self, Api, RecordedTime, Setup},
    raw,
    sqlite::File,
};

over_both_stores! {
    a_page_of_large_articles_ends_early
    a_large_article_has_a_page_of_its_own
}

struct Running {
    api: Api,
    _fixture: super::TestStore<File>,
}

async fn start_with(change: impl FnOnce(&mut Setup)) -> Running {
    let fixture = on_sqlite();
    let clock = Arc::new(RecordedTime);
    Running {
        api: api::start_with_setup(fixture.store.clone(), TaskQueue::InProcess, clock, change).await,
        _fixture: fixture,
    }
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
async fn the_response_to_many_invalid_fields_is_bounded() {
    let running = start_with(|_| ()).await;
    let unknown: serde_json::Map<String, Value> = (0..30_000)
        .map(|i| (format!("unknown field {i}"), Value::Null))
        .collect();
    let long = json!({"a\u{1}".repeat(100_000): 1, "email": 1});
    for body in [Value::Object(unknown), long] {
        let response = raw::request(running.api.address, "POST", "/api/login", None, Some(&body)).await;
        assert_eq!(response.status, 400);
        assert!(response.body.len() < 64 * 1024, "{} bytes", response.body.len());
        let fields = &response.json()["error"]["fields"];
        assert_eq!(fields["password"], json!(["Missing data for required field."]));
        assert_eq!(fields["_schema"], json!(["Further errors are omitted."]));
    }
}

#[tokio::test]
async fn every_refused_head_gets_the_error_envelope() {
    let running = start_with(|_| ()).await;
    let json = "Content-Type: application/json\r\n";
    let fields = "X-A: 1\r\n".repeat(101);
    let long_field = format!("X-A: {}\r\n", "x".repeat(70_000));
    let long_target = "x".repeat(70_000);
    for (request, status, code) in [
        (
            "GET /api/articles/?search=<b> HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (
            "GET /api/articles/?search=\"a\" HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        ("GET\r\n\r\n".to_owned(), 400, "bad_request"),
        (
            "GET /api/health/live HTTP/3.0\r\nHost: x\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (
            "GET /api/health/live HTTP/1.1\r\nHost: x\r\nbad field: 1\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (
            "GET /api/health/live HTTP/1.1\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (
            "GET /api/health/live HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (
            "GET /api/health/live HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
        (
            "GET /api/health/live HTTP/1.1\r\nHost: x/y\r\n\r\n".to_owned(),
            400,
            "bad_request",
        ),
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
    ] {
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
    assert_eq!(old.status, 200, "HTTP/1.0 has no Host");
}

/// A proxy may send requests of several clients on one connection.
#[tokio::test]
async fn a_good_request_before_an_ambiguous_one_is_answered_on_its_merits() {
    let running = start_with(|_| ()).await;
    let credentials = r#"{"email":"ann@mail.example","password":"password123"}"#;
    let good = format!(
        "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{credentials}\r\n0\r\n\r\n",
        credentials.len()
    );
    let ambiguous = good.replace("Host: x\r\n", "Host: x\r\nContent-Length: 5\r\n");
    for pause in [Duration::ZERO, Duration::from_millis(300)] {
        let mut stream = TcpStream::connect(running.api.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        if pause.is_zero() {
            stream
                .write_all(format!("{good}{ambiguous}{good}").as_bytes())
                .await
                .unwrap();
        } else {
            stream.write_all(good.as_bytes()).await.unwrap();
            tokio::time::sleep(pause).await;
            stream.write_all(ambiguous.as_bytes()).await.unwrap();
        }
        let text = rest(&mut stream).await;
        let statuses: Vec<_> = text
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|response| &response[..3])
            .collect();
        assert_eq!(statuses, ["401", "400"], "{text}");
    }
}

#[tokio::test]
async fn an_announced_body_over_the_limit_is_refused_at_once() {
    let running = start_with(|_| ()).await;
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
    let running = start_with(|setup| {
        setup.limits.header_read_timeout = Duration::from_millis(100);
        setup.limits.keep_alive_timeout = Duration::from_millis(800);
    })
    .await;
    let mut idle = TcpStream::connect(running.api.address).await.unwrap();
    idle.write_all(b"GET /api/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    raw::read_response(&mut idle, false).await;
    let start = Instant::now();
    assert_eq!(rest(&mut idle).await, "");
    assert!(
        start.elapsed() > Duration::from_millis(700),
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
    let running = start_with(|_| ()).await;
    let address = running.api.address;
    let mut responses = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: 1000000\r\n\r\n{}", "x".repeat(100_000));
        stream.write_all(request.as_bytes()).await.unwrap();
        responses.spawn(async move { raw::read_response(&mut stream, false).await });
    }
    // Sixteen have memory, and the others are rejected, at the latest after they have waited.
    for _ in 0..20 {
        let response = timeout(Duration::from_secs(20), responses.join_next()).await;
        let response = response.expect("too few are rejected").unwrap().unwrap();
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, Some("1"))
        );
    }
    raw::register(address, "alice@example.com").await;
}
