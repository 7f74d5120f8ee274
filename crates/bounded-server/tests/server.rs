//! Runs servers on free loopback ports, with clients that write requests as bytes.
#![cfg(test)]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    routing::{any, get},
};
use bounded_server::{AmbiguousFraming, CancellationToken, GraceExceeded, PeerAddress, Server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Time limit of every wait; a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), GraceExceeded>>,
}

impl Running {
    async fn start(server: Server, router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(server.serve(listener, router, shutdown.clone().cancelled_owned()));
        Self {
            address,
            shutdown,
            served,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) -> Result<(), GraceExceeded> {
        self.shutdown.cancel();
        timeout(PATIENCE, self.served).await.unwrap().unwrap()
    }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// Returns a router that notifies the test of each request and never responds.
fn stuck() -> (Router, mpsc::UnboundedReceiver<()>) {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let handler = move || {
        arrived.send(()).unwrap();
        std::future::pending::<()>()
    };
    (Router::new().route("/", get(handler)), arrivals)
}

/// Reads one response with a `Content-Length`, and returns its head and body.
async fn response(stream: &mut TcpStream) -> (String, String) {
    let read = async {
        let mut text = String::new();
        loop {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "closed after {text:?}");
            text.push_str(str::from_utf8(&buffer[..read]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return (head, body.to_owned());
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap()
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> (String, String) {
    stream.write_all(request).await.unwrap();
    response(stream).await
}

/// Waits for the server to close the connection. A reset counts, as the client may have been writing.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    rest
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_disconnected() {
    let server = Server::new().header_read_timeout(Duration::from_millis(100));
    let running = Running::start(server, hello()).await;
    let mut stream = running.connect().await;
    stream.write_all(&GET[..10]).await.unwrap();
    closed(&mut stream).await;
    let (head, _) = exchange(&mut running.connect().await, GET).await;
    assert!(head.starts_with("http/1.1 200"), "others are served: {head}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_header_time_out() {
    let server = Server::new().header_read_timeout(Duration::from_millis(100));
    let running = Running::start(server, hello()).await;
    let mut stream = running.connect().await;
    exchange(&mut stream, GET).await;
    assert!(closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_rejected() {
    let running = Running::start(Server::new().max_head_bytes(10_000), hello()).await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let mut stream = running.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, _) = response(&mut stream).await;
    assert!(head.starts_with("http/1.1 431"), "{head}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_another_to_close() {
    let running = Running::start(Server::new().max_connections(2), hello()).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = running.connect().await;
        exchange(&mut stream, GET).await;
        open.push(stream);
    }
    let mut waiting = running.connect().await;
    waiting.write_all(GET).await.unwrap();
    // The absence of a response can be observed only by waiting; a slow machine cannot make this fail.
    let early = timeout(Duration::from_millis(200), waiting.readable()).await;
    assert!(early.is_err(), "served beyond the limit");
    drop(open.pop());
    assert_eq!(response(&mut waiting).await.1, "hello");
}

#[tokio::test]
async fn while_draining_every_response_closes_its_connection() {
    let draining = CancellationToken::new();
    let running = Running::start(Server::new().drain_on(draining.clone()), hello()).await;
    let mut before = running.connect().await;
    let (head, _) = exchange(&mut before, GET).await;
    assert!(!head.contains("connection:"), "{head}");
    draining.cancel();
    for mut stream in [before, running.connect().await] {
        let (head, body) = exchange(&mut stream, GET).await;
        assert_eq!(body, "hello");
        assert!(head.contains("connection: close"), "{head}");
        assert!(closed(&mut stream).await.is_empty());
    }
}

#[tokio::test]
async fn shutdown_finishes_requests_in_progress_and_closes_idle_connections() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let go_on = CancellationToken::new();
    let handler = {
        let go_on = go_on.clone();
        move || async move {
            arrived.send(()).unwrap();
            go_on.cancelled().await;
            "late"
        }
    };
    let router = hello().route("/late", get(handler));
    let running = Running::start(Server::new(), router).await;
    let mut idle = running.connect().await;
    exchange(&mut idle, GET).await;
    let mut busy = running.connect().await;
    busy.write_all(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    arrivals.recv().await.unwrap();

    running.shutdown.cancel();
    assert!(closed(&mut idle).await.is_empty());
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "still listening"
    );
    go_on.cancel();
    assert_eq!(response(&mut busy).await.1, "late");
    assert_eq!(running.stop().await, Ok(()));
}

#[tokio::test]
async fn requests_beyond_the_grace_period_are_aborted() {
    let (router, mut arrivals) = stuck();
    let server = Server::new().grace_period(Duration::from_millis(50));
    let running = Running::start(server, router).await;
    let mut stream = running.connect().await;
    stream.write_all(GET).await.unwrap();
    arrivals.recv().await.unwrap();
    assert!(running.stop().await.is_err());
    assert!(closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn dropping_the_future_closes_every_connection() {
    let (router, mut arrivals) = stuck();
    let running = Running::start(Server::new(), router).await;
    let mut stream = running.connect().await;
    stream.write_all(GET).await.unwrap();
    arrivals.recv().await.unwrap();
    running.served.abort();
    assert!(closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn requests_have_the_address_of_their_client() {
    let handler = |Extension(PeerAddress(peer)): Extension<PeerAddress>| async move { peer.to_string() };
    let running = Running::start(Server::new(), Router::new().route("/", get(handler))).await;
    let mut stream = running.connect().await;
    let (_, body) = exchange(&mut stream, GET).await;
    assert_eq!(body, stream.local_addr().unwrap().to_string());
}

#[tokio::test]
async fn ambiguous_framing_is_marked_if_detection_is_on() {
    let handler = |marker: Option<Extension<AmbiguousFraming>>| async move { marker.is_some().to_string() };
    let router = Router::new().route("/", any(handler));
    let both =
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for detect in [true, false] {
        let server = Server::new().detect_ambiguous_framing(detect);
        let running = Running::start(server, router.clone()).await;
        let (_, body) = exchange(&mut running.connect().await, both).await;
        assert_eq!(body, detect.to_string());
        let (_, body) = exchange(&mut running.connect().await, chunked).await;
        assert_eq!(body, "false");
    }
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn http2_is_served_by_prior_knowledge_and_without_connection_headers() {
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let draining = CancellationToken::new();
    draining.cancel();
    let running = Running::start(Server::http2().drain_on(draining), hello()).await;
    let io = TokioIo::new(running.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("http://{}/", running.address));
    let sent = sender.send_request(request.body(Empty::<&[u8]>::new()).unwrap());
    let response = timeout(PATIENCE, sent).await.unwrap().unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(!response.headers().contains_key("connection"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");

    assert_eq!(running.stop().await, Ok(()));
    timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap();
}
