//! The HTTP layer in a real server, with clients that disconnect.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Path, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use http::StatusCode;
use otel_service::HttpLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use tower::ServiceExt;

use crate::support::{self, Behaviour, number, shown};

/// Reports when a handler is dropped.
struct DropReporter(mpsc::UnboundedSender<&'static str>);

impl Drop for DropReporter {
    fn drop(&mut self) {
        self.0.send("dropped").unwrap();
    }
}

async fn connect(listener: &std::net::SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {listener}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

fn scenario() {
    let telemetry = support::init().unwrap();
    support::block_on(async {
        let (events, mut received_events) = mpsc::unbounded_channel();
        let slow = get(move || {
            let reporter = DropReporter(events.clone());
            async move {
                reporter.0.send("started").unwrap();
                std::future::pending::<()>().await;
            }
        });
        let router = Router::new()
            .route("/slow/{id}", slow)
            .nest(
                "/api",
                Router::new().route("/articles/{slug}", get(|| async { "found" })),
            )
            .fallback(|| async { StatusCode::NOT_FOUND })
            .layer(HttpLayer::new(|parts| {
                parts.extensions.get().map(MatchedPath::as_str)
            }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });

        for (path, expected) in [("/api/articles/a-b", "200 OK"), ("/no/where", "404 Not Found")] {
            let mut response = String::new();
            let mut stream = connect(&address, path).await;
            stream.read_to_string(&mut response).await.unwrap();
            assert!(
                response.starts_with(&format!("HTTP/1.1 {expected}")),
                "{response}"
            );
            assert!(response.contains("traceresponse: 00-"), "{response}");
        }

        let clients: Vec<TcpStream> = vec![
            connect(&address, "/slow/1").await,
            connect(&address, "/slow/2").await,
        ];
        for event in ["started", "started"] {
            assert_eq!(received_events.recv().await, Some(event));
        }
        drop(clients);
        for event in ["dropped", "dropped"] {
            assert_eq!(received_events.recv().await, Some(event));
        }
        server.abort();
    });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn disconnected_clients_leave_no_request_active() {
    let name = "server::disconnected_clients_leave_no_request_active";
    let Some(run) = support::run(name, Behaviour::Accepts, &[], scenario) else {
        return;
    };
    let received = run.received;
    let mut names = received.span_names();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "GET",
            "GET /api/articles/{slug}",
            "GET /slow/{id}",
            "GET /slow/{id}"
        ]
    );
    let active = received.numbers("http.server.active_requests");
    assert_eq!(active.len(), 1);
    assert!(number(&active[0]).abs() < f64::EPSILON, "{active:?}");
    let mut durations: Vec<String> = received
        .histogram("http_request_duration_seconds")
        .iter()
        .map(|point| format!("{} {}", shown(&point.attributes).join(" "), point.count))
        .collect();
    durations.sort();
    assert_eq!(
        durations,
        [
            "method=\"GET\" route=\"/api/articles/{slug}\" status=200 1",
            "method=\"GET\" route=\"/slow/{id}\" status=499 2",
            "method=\"GET\" route=\"unmatched\" status=404 1",
        ]
    );
}

/// Returns the `traceresponse` of responses that axum and middleware make.
async fn responses_of_the_framework() -> Vec<Option<String>> {
    let limit = from_fn(async |request: Request, next: Next| {
        let path = request.uri().path().to_owned();
        match tokio::time::timeout(Duration::from_millis(5), next.run(request)).await {
            _ if path == "/overload" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Ok(response) => response,
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    });
    let router = Router::new()
        .route("/number/{number}", get(async |_: Path<u8>| "number"))
        .route("/body", post(async |_: String| "body"))
        .route("/slow", get(std::future::pending::<Response>))
        .route("/health", get(async || "healthy"))
        .layer(DefaultBodyLimit::max(4))
        .layer(limit)
        .layer(HttpLayer::new(|_| None).untraced_paths(|path| path == "/health"));
    let mut given = Vec::new();
    for (method, path, body, status) in [
        ("GET", "/number/7", "", 200),
        ("GET", "/number/seven", "", 400),
        ("GET", "/nowhere", "", 404),
        ("PUT", "/body", "", 405),
        ("GET", "/slow", "", 408),
        ("POST", "/body", "too long", 413),
        ("GET", "/overload", "", 503),
        ("GET", "/health", "", 200),
    ] {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body)).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let value = response.headers().get("traceresponse");
        given.push(value.map(|value| value.to_str().unwrap().to_owned()));
    }
    given
}

/// Checks the flags of `traceresponse`, or that there is none.
fn check_traceresponse(name: &str, variable: (&str, &str), flags: Option<&str>) {
    let name = format!("server::{name}");
    support::run(&name, Behaviour::Accepts, &[variable], || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        let mut given = support::block_on(responses_of_the_framework());
        if flags.is_some() {
            let untraced = given.pop().unwrap().unwrap();
            assert!(untraced.ends_with("-02"), "{untraced}");
        }
        for value in given {
            let shown = value.as_deref().map(|value| value.rsplit('-').next().unwrap());
            assert_eq!(shown, flags, "{value:?}");
        }
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn every_sampled_response_has_a_traceresponse() {
    let name = "every_sampled_response_has_a_traceresponse";
    check_traceresponse(name, ("OTEL_TRACES_SAMPLER", "always_on"), Some("03"));
}

#[test]
fn every_unsampled_response_has_a_traceresponse() {
    let name = "every_unsampled_response_has_a_traceresponse";
    check_traceresponse(name, ("OTEL_TRACES_SAMPLER", "always_off"), Some("02"));
}

#[test]
fn no_response_of_a_disabled_sdk_has_a_traceresponse() {
    let name = "no_response_of_a_disabled_sdk_has_a_traceresponse";
    check_traceresponse(name, ("OTEL_SDK_DISABLED", "true"), None);
}
