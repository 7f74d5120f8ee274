//! Every way in which a request can end, against a real server and mostly a thousand times: every request has
//! one span and one duration, and no request remains active.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::error_handling::HandleErrorLayer;
use axum::extract::{MatchedPath, Path};
use axum::response::Response;
use axum::routing::{any, get};
use http::{Request, StatusCode, header};
use http_body::Frame;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use otel_service::HttpLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};

use crate::support::{self, Behaviour, Received, number, value};

/// Number of requests for each ending that is repeated.
const REPETITIONS: usize = 1_000;
/// Number of concurrent requests.
const CONCURRENT: usize = 50;

/// Notifies when the handler of `/pending/{turn}` has started.
static STARTED: [Semaphore; REPETITIONS] = [const { Semaphore::const_new(0) }; REPETITIONS];

type Next = Poll<Option<Result<Frame<Bytes>, &'static str>>>;

/// A body of several pieces, followed by the result of `then`.
struct Pieces {
    left: usize,
    paused: bool,
    then: fn() -> Next,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Next {
        assert!(
            otel_service::current_trace_id().is_some(),
            "the span is the current one"
        );
        if self.left > 0 {
            self.left -= 1;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"piece ")))));
        }
        if !std::mem::replace(&mut self.paused, true) {
            // Lets the server send the pieces so far.
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        (self.then)()
    }
}

fn pieces(left: usize, then: fn() -> Next) -> Response {
    Response::new(Body::new(Pieces {
        left,
        paused: false,
        then,
    }))
}

fn respond(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

async fn pending(Path(turn): Path<usize>) {
    STARTED[turn].add_permits(1);
    std::future::pending::<()>().await;
}

async fn panics() -> Response {
    panic!("in the handler")
}

async fn announced() -> Response {
    let mut response = pieces(2, || Poll::Pending);
    response.headers_mut().insert(header::CONTENT_LENGTH, 12.into());
    response
}

fn router() -> Router {
    let layer = HttpLayer::new(|parts| parts.extensions.get().map(MatchedPath::as_str));
    let impatient = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: BoxError| async {
            StatusCode::GATEWAY_TIMEOUT
        }))
        .layer(TimeoutLayer::new(Duration::from_millis(5)));
    let late = Router::new()
        .route("/late", get(std::future::pending::<()>))
        .layer(layer)
        .layer(impatient);
    Router::new()
        .route("/pending/{turn}", get(pending))
        .route("/panic", get(panics))
        .route("/whole", get(|| async { pieces(3, || Poll::Ready(None)) }))
        .route("/endless", get(|| async { pieces(1, || Poll::Pending) }))
        .route("/announced", get(announced))
        .route(
            "/broken",
            get(|| async { pieces(1, || Poll::Ready(Some(Err("no more")))) }),
        )
        .route(
            "/panicking",
            get(|| async { pieces(1, || panic!("by process {}", std::process::id())) }),
        )
        .route("/plain", any(|| async { "plain" }))
        .route("/none", get(|| async { respond(StatusCode::NO_CONTENT, "x") }))
        .route("/same", get(|| async { respond(StatusCode::NOT_MODIFIED, "x") }))
        .route(
            "/switch",
            get(|| async { respond(StatusCode::SWITCHING_PROTOCOLS, "") }),
        )
        .layer(layer)
        .merge(late)
}

/// Accepts connections until `stop`, then waits for the open ones.
async fn serve(listener: TcpListener, mut stop: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            _ = &mut stop => break,
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let service =
            TowerToHyperService::new(router().map_request(|request: Request<_>| request.map(Body::new)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // Most connections fail, as intended.
        connections.spawn(async move { drop(connection.await) });
    }
    while connections.join_next().await.is_some() {}
}

async fn send(server: SocketAddr, method: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads a response until the server closes the connection.
async fn read(server: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = send(server, method, path).await;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.ok();
    String::from_utf8(response).unwrap()
}

/// Reads the first piece of the body, then disconnects.
async fn read_a_piece(server: SocketAddr, path: &str) {
    let mut stream = send(server, "GET", path).await;
    let mut response = Vec::new();
    while !response.ends_with(b"piece \r\n") {
        assert_ne!(stream.read_buf(&mut response).await.unwrap(), 0);
    }
}

/// Runs `one` repeatedly, with limited concurrency.
async fn often<F: Future<Output = ()> + Send + 'static>(one: impl Fn(usize) -> F) {
    let mut running = JoinSet::new();
    for turn in 0..REPETITIONS {
        if running.len() == CONCURRENT {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(one(turn));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

async fn many(server: SocketAddr) {
    often(move |turn| async move {
        let stream = send(server, "GET", &format!("/pending/{turn}")).await;
        STARTED[turn].acquire().await.unwrap().forget();
        drop(stream);
    })
    .await;
    often(move |_| async move {
        assert!(read(server, "GET", "/late").await.contains(" 504 "));
    })
    .await;
    often(move |_| async move {
        assert_eq!(read(server, "GET", "/panic").await, "");
    })
    .await;
    often(move |turn| async move {
        if turn % 2 == 0 {
            assert!(read(server, "GET", "/whole").await.ends_with("0\r\n\r\n"));
        } else {
            read_a_piece(server, "/endless").await;
        }
    })
    .await;
    often(move |_| async move {
        assert!(read(server, "GET", "/plain").await.ends_with("plain"));
    })
    .await;
}

async fn single(server: SocketAddr) {
    let announced = read(server, "GET", "/announced").await;
    assert!(announced.ends_with("\r\n\r\npiece piece "), "{announced}");
    for path in ["/broken", "/panicking"] {
        let response = read(server, "GET", path).await;
        assert!(response.ends_with("piece \r\n"), "{path}: {response}");
    }
    for (method, path, status) in [
        ("HEAD", "/plain", 200),
        ("OPTIONS", "/plain", 200),
        ("GET", "/none", 204),
        ("GET", "/same", 304),
        ("GET", "/switch", 101),
    ] {
        let response = read(server, method, path).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&expected), "{method} {path}: {response}");
    }
}

/// Cases that need no server: an error without a response, a panic in `call`, and a tunnel.
async fn without_server() {
    let layer = HttpLayer::new(|parts| Some(parts.uri.path()));
    let request = |path: &str| Request::builder().uri(path).body(()).unwrap();
    let failing = layer.layer(tower::service_fn(|_: Request<()>| async {
        Err::<http::Response<String>, _>("no response")
    }));
    failing.oneshot(request("/error")).await.unwrap_err();

    let panics_in_call = |_: Request<()>| -> std::future::Ready<Result<http::Response<String>, BoxError>> {
        panic!("in call")
    };
    let panicking = layer.layer(tower::service_fn(panics_in_call));
    let ended = tokio::spawn(panicking.oneshot(request("/in-call"))).await;
    assert!(ended.unwrap_err().is_panic());

    let tunnel = layer.layer(tower::service_fn(|_: Request<()>| async {
        Ok::<_, BoxError>(http::Response::new("a server must not send this".to_owned()))
    }));
    let mut connect = request("/tunnel");
    *connect.method_mut() = http::Method::CONNECT;
    drop(tunnel.oneshot(connect).await.unwrap());
}

fn scenario() {
    // The scenario causes thousands of panics; an unexpected one still fails it.
    std::panic::set_hook(Box::new(|_| {}));
    let telemetry = support::init().unwrap();
    support::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, stopped));
        many(address).await;
        single(address).await;
        without_server().await;
        stop.send(()).unwrap();
        server.await.unwrap();
    });
    telemetry.shutdown(Duration::from_secs(20)).unwrap();
}

#[test]
fn every_request_has_one_span_and_one_duration_and_ends_inactive() {
    let Some(run) = support::run(
        "endings::every_request_has_one_span_and_one_duration_and_ends_inactive",
        Behaviour::Accepts,
        &[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "10000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ],
        scenario,
    ) else {
        return;
    };
    let received = run.received;
    let mut spans: BTreeMap<String, usize> = BTreeMap::new();
    for span in &received.spans {
        *spans.entry(described(span)).or_default() += 1;
    }
    let expected = [
        ("CONNECT /tunnel 200", 1),
        ("GET /announced 200", 1),
        ("GET /broken 200 response_body: no more", 1),
        ("GET /endless 200 cancelled", REPETITIONS / 2),
        ("GET /error service_error: no response", 1),
        ("GET /in-call panic: in call", 1),
        ("GET /late cancelled", REPETITIONS),
        ("GET /none 204", 1),
        ("GET /panic panic: in the handler", REPETITIONS),
        (
            "GET /panicking 200 panic: message withheld because it may contain sensitive values",
            1,
        ),
        ("GET /pending/{turn} cancelled", REPETITIONS),
        ("GET /plain 200", REPETITIONS),
        ("GET /same 304", 1),
        ("GET /switch 101", 1),
        ("GET /whole 200", REPETITIONS / 2),
        ("HEAD /plain 200", 1),
        ("OPTIONS /plain 200", 1),
    ];
    let shown: Vec<(&str, usize)> = spans.iter().map(|(span, count)| (&**span, *count)).collect();
    assert_eq!(shown, expected);

    let requests: usize = expected.iter().map(|(_, count)| count).sum();
    for name in ["http.server.request.duration", "http_request_duration_seconds"] {
        let durations = received.histogram(name);
        let count: u64 = durations.iter().map(|point| point.count).sum();
        assert_eq!(count, requests as u64, "{name}");
    }
    let active = received.numbers("http.server.active_requests");
    assert!(!active.is_empty());
    assert!(
        active.iter().all(|point| number(point).abs() < f64::EPSILON),
        "{active:?}"
    );
    statuses(&received, requests);
}

/// Describes a span: its name, status code, error type and, after a colon, its exception.
fn described(span: &Span) -> String {
    let mut words = vec![span.name.clone()];
    words.extend(value(&span.attributes, "http.response.status_code"));
    words.extend(value(&span.attributes, "error.type").map(|text| text.trim_matches('"').to_owned()));
    let failed = span
        .status
        .as_ref()
        .is_some_and(|status| status.code() == SpanStatus::Error);
    let described = words.join(" ");
    match span.events.as_slice() {
        [] => {
            assert!(!failed, "{described} failed without an exception");
            described
        }
        [exception] => {
            assert!(failed, "{described} has an exception but no error status");
            let message = value(&exception.attributes, "exception.message").unwrap();
            format!("{described}: {}", message.trim_matches('"'))
        }
        more => panic!("{described}: {more:?}"),
    }
}

/// Checks that requests without a response are counted as 499, or as 500 if the service failed.
fn statuses(received: &Received, requests: usize) {
    let mut counted: BTreeMap<String, f64> = BTreeMap::new();
    for point in received.numbers("http_requests_total") {
        *counted
            .entry(value(&point.attributes, "status").unwrap())
            .or_default() += number(&point);
    }
    assert!((counted.values().sum::<f64>() - requests as f64).abs() < f64::EPSILON);
    assert!(
        (counted["499"] - 2.0 * REPETITIONS as f64).abs() < f64::EPSILON,
        "{counted:?}"
    );
    // The panics in handlers, the panic in `call`, and the error.
    assert!(
        (counted["500"] - REPETITIONS as f64 - 2.0).abs() < f64::EPSILON,
        "{counted:?}"
    );

    let without_response = received.histogram("http.server.request.duration");
    let without_response = without_response
        .iter()
        .filter(|point| value(&point.attributes, "http.response.status_code").is_none());
    let without_response: u64 = without_response.map(|point| point.count).sum();
    assert_eq!(
        without_response,
        3 * REPETITIONS as u64 + 2,
        "the status is absent if no response was sent"
    );
}
