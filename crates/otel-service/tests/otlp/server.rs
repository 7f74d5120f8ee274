//! The HTTP layer in a real server, with clients that disconnect.

use std::time::Duration;

use axum::Router;
use axum::extract::MatchedPath;
use axum::routing::get;
use otel_service::HttpLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

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
            .fallback(|| async { http::StatusCode::NOT_FOUND })
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
