//! Runs servers on free loopback ports, with clients that write requests as bytes.
#![cfg(test)]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    http::{Method, Request, Uri},
    routing::get,
};
use bounded_server::{
    CancellationToken, GraceExceeded, InvalidRequest, PeerAddress, ReservedConnection, Server,
};
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
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
async fn a_client_that_sends_its_head_slowly_is_disconnected() {
    let server = Server::new().header_read_timeout(Duration::from_millis(200));
    let running = Running::start(server, hello()).await;
    let mut stream = running.connect().await;
    let (mut read, mut write) = stream.split();
    let dribble = async {
        write.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ").await?;
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            write.write_all(b"a").await?;
        }
    };
    let closed = async {
        let mut rest = Vec::new();
        let _ = read.read_to_end(&mut rest).await;
        rest
    };
    let dribble: std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>>>> = Box::pin(dribble);
    let rest = timeout(PATIENCE, async {
        tokio::select! {
            rest = closed => rest,
            _reset = dribble => Vec::new(),
        }
    });
    assert!(rest.await.expect("the connection stays open").is_empty());
}

#[tokio::test]
async fn an_idle_connection_has_a_time_out_of_its_own() {
    let server = Server::new()
        .header_read_timeout(Duration::from_millis(100))
        .keep_alive_timeout(Duration::from_secs(3));
    let running = Running::start(server, hello()).await;
    let mut stream = running.connect().await;
    for _ in 0..2 {
        exchange(&mut stream, GET).await;
        // Longer than the time for a head.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    exchange(&mut stream, GET).await;
    let start = std::time::Instant::now();
    assert!(closed(&mut stream).await.is_empty());
    assert!(
        start.elapsed() >= Duration::from_millis(2_500),
        "{:?}",
        start.elapsed()
    );
    let mut silent = running.connect().await;
    assert!(closed(&mut silent).await.is_empty());
}

#[tokio::test]
async fn a_slow_handler_is_not_an_idle_connection() {
    let server = Server::new()
        .header_read_timeout(Duration::from_millis(50))
        .keep_alive_timeout(Duration::from_millis(50));
    let handler = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "late"
    };
    let running = Running::start(server, Router::new().route("/", get(handler))).await;
    let mut stream = running.connect().await;
    assert_eq!(exchange(&mut stream, GET).await.1, "late");
    assert!(closed(&mut stream).await.is_empty());
}

/// Returns a router whose response is larger than the buffers of the sockets.
fn large() -> Router {
    hello().route("/large", get(|| async { vec![b'x'; 16 << 20] }))
}

/// Connects with a small receive buffer and requests the large response.
async fn request_large(running: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    stream
        .write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    stream
}

/// Waits until the server has closed the connection, without reading from it.
async fn closed_unread(stream: &TcpStream) {
    let closed = async {
        // The server closes the socket with unsent data, which is a reset.
        while stream.take_error().unwrap().is_none() && stream.try_write(b"\r\n").is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, closed)
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let server = Server::new().write_timeout(Duration::from_millis(200));
    let running = Running::start(server, large()).await;
    let stream = request_large(&running).await;
    closed_unread(&stream).await;
    assert_eq!(running.stop().await, Ok(()), "the request is not in progress");
}

#[tokio::test]
async fn a_client_that_reads_almost_nothing_is_disconnected() {
    let server = Server::new().write_timeout(Duration::from_millis(300));
    let running = Running::start(server, large()).await;
    let mut stream = request_large(&running).await;
    let dribble = async {
        let mut byte = [0];
        // After a reset, what the client has received can still be read.
        while stream.take_error().unwrap().is_none() && stream.read_exact(&mut byte).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, dribble)
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let server = Server::new().write_timeout(Duration::from_millis(400));
    let running = Running::start(server, large()).await;
    let mut stream = request_large(&running).await;
    let read = async {
        let mut total = 0;
        let mut buffer = vec![0; 256 << 10];
        while total < 16 << 20 {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "closed after {total} bytes");
            total += read;
            if total < 1 << 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap();
}

#[tokio::test]
async fn under_pressure_a_client_that_does_not_read_is_disconnected_early() {
    let server = Server::new()
        .write_timeout(Duration::from_secs(3600))
        .close_slow_readers_under(|| true);
    let running = Running::start(server, large()).await;
    let stream = request_large(&running).await;
    closed_unread(&stream).await;
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_rejected() {
    let running = Running::start(Server::new().max_head_bytes(10_000), hello()).await;
    let field = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000));
    for (request, status) in [(field, "431"), (target, "414")] {
        let mut stream = running.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, _) = response(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_request_to_finish() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let go_on = CancellationToken::new();
    let handler = {
        let go_on = go_on.clone();
        move || async move {
            arrived.send(()).unwrap();
            go_on.cancelled().await;
        }
    };
    let router = hello().route("/late", get(handler));
    let running = Running::start(Server::new().max_connections(2), router).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = running.connect().await;
        stream
            .write_all(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        arrivals.recv().await.unwrap();
        open.push(stream);
    }
    let mut waiting = running.connect().await;
    waiting.write_all(GET).await.unwrap();
    // The absence of a response can be observed only by waiting; a slow machine cannot make this fail.
    let early = timeout(Duration::from_millis(200), waiting.readable()).await;
    assert!(early.is_err(), "served beyond the limit");
    go_on.cancel();
    assert_eq!(response(&mut waiting).await.1, "hello");
}

#[tokio::test]
async fn at_the_limit_the_connection_that_waits_longest_is_replaced() {
    let running = Running::start(Server::new().max_connections(3), hello()).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = running.connect().await;
        exchange(&mut stream, GET).await;
        open.push(stream);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The first is now the latest.
    exchange(&mut open[0], GET).await;
    let (_, body) = exchange(&mut running.connect().await, GET).await;
    assert_eq!(body, "hello");
    assert!(closed(&mut open[1]).await.is_empty());
    exchange(&mut open[0], GET).await;
    exchange(&mut open[2], GET).await;
}

#[tokio::test]
async fn clients_without_a_request_do_not_keep_out_others() {
    let running = Running::start(Server::new().max_connections(20), hello()).await;
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut stream = running.connect().await;
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ").await;
        half.push(stream);
    }
    let (_, body) = exchange(&mut running.connect().await, GET).await;
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn silent_clients_do_not_delay_others() {
    let running = Running::start(Server::new().max_connections(20), hello()).await;
    let mut attackers = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let address = running.address;
        attackers.spawn(async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let _closed = stream.read_u8().await;
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        let start = tokio::time::Instant::now();
        let (_, body) = exchange(&mut running.connect().await, GET).await;
        assert_eq!(body, "hello");
        assert!(
            start.elapsed() < Duration::from_millis(1500),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn clients_that_do_not_finish_a_body_do_not_keep_out_others() {
    let running = Running::start(Server::new().max_connections(20), echo().merge(hello())).await;
    let mut half = Vec::new();
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        for _ in 0..50 {
            let mut stream = running.connect().await;
            let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            half.push(stream);
        }
    }
    let (_, body) = exchange(&mut running.connect().await, GET).await;
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn one_address_cannot_use_all_connections_unless_it_is_a_proxy() {
    for is_proxy in [false, true] {
        let (router, mut arrivals) = stuck();
        let server = Server::new()
            .max_connections(10)
            .max_connections_per_address(2, move |_| is_proxy);
        let running = Running::start(server, router).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut stream = running.connect().await;
            stream.write_all(GET).await.unwrap();
            arrivals.recv().await.unwrap();
            open.push(stream);
        }
        let mut third = running.connect().await;
        let _ = third.write_all(GET).await;
        if is_proxy {
            timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
        } else {
            assert!(closed(&mut third).await.is_empty());
        }
    }
}

#[tokio::test]
async fn connections_for_health_probes_are_kept() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let handler = move |reserved: Option<Extension<ReservedConnection>>| async move {
        if reserved.is_some() {
            return "reserved";
        }
        arrived.send(()).unwrap();
        std::future::pending().await
    };
    let server = Server::new().max_connections(4).reserved_connections(2);
    let running = Running::start(server, Router::new().route("/", get(handler))).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = running.connect().await;
        stream.write_all(GET).await.unwrap();
        arrivals.recv().await.unwrap();
        open.push(stream);
    }
    for _ in 0..5 {
        let mut probe = running.connect().await;
        assert_eq!(exchange(&mut probe, GET).await.1, "reserved");
        open.push(probe);
    }
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

const LOGIN: &str =
    "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n";
const AMBIGUOUS: &str =
    "POST /ambiguous HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
/// A request whose body looks like an ambiguous head.
const QUOTE: &str = "PUT /quote HTTP/1.1\r\nHost: x\r\nContent-Length: 84\r\n\r\n\
    POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: a\r\nHost: b\r\n\r\n";

/// Returns a router that responds with the method, the target, the verdict and the body.
fn echo() -> Router {
    let handler = |method: Method, uri: Uri, request: Request<Body>| async move {
        let invalid = request.extensions().get::<InvalidRequest>().copied();
        let body: Result<Bytes, _> = request.into_body().collect().await.map(|body| body.to_bytes());
        let body = body.map_or_else(|_| "failed".to_owned(), |body| body.len().to_string());
        let verdict = invalid.map_or("valid".to_owned(), |invalid| invalid.status().as_str().to_owned());
        format!("[{method} {uri} {verdict} {body}]")
    };
    Router::new().fallback(handler)
}

/// Sends the pieces, and returns the bodies of all responses until the server closes the connection.
async fn verdicts(running: &Running, pieces: &[&[u8]]) -> String {
    let mut stream = running.connect().await;
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let text = String::from_utf8(closed(&mut stream).await).unwrap();
    let bodies = text.split('[').skip(1);
    bodies
        .map(|body| format!("[{}]", body.split(']').next().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_verdict_concerns_its_request_however_the_bytes_are_cut() {
    let server = Server::new().pass_invalid_requests(true);
    let running = Running::start(server, echo()).await;
    let bytes = [LOGIN, QUOTE, LOGIN, AMBIGUOUS, LOGIN].concat();
    let expected = "[POST /login valid 3][PUT /quote valid 84][POST /login valid 3][POST /ambiguous 400 0]";
    assert_eq!(verdicts(&running, &[bytes.as_bytes()]).await, expected);
    let single: Vec<_> = bytes.as_bytes().chunks(1).collect();
    assert_eq!(verdicts(&running, &single).await, expected);
    for split in 1..bytes.len() {
        let (before, after) = bytes.as_bytes().split_at(split);
        assert_eq!(verdicts(&running, &[before, after]).await, expected, "{split}");
    }
}

#[tokio::test]
async fn an_invalid_request_is_passed_to_the_service_or_gets_its_status() {
    let requests = [
        ("GET /x?<b> HTTP/1.1\r\nHost: x\r\n\r\n", "400", "GET /"),
        ("GET /x HTTP/1.1\r\n\r\n", "400", "GET /x"),
        (
            "DELETE /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "400",
            "DELETE /x",
        ),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x y\r\n\r\n", "400", "GET x:1"),
        (
            "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "501",
            "POST /x",
        ),
        (
            "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "413",
            "POST /x",
        ),
        ("\x16\x03\x01", "400", "GET /"),
    ];
    let passing = Running::start(Server::new().pass_invalid_requests(true), echo()).await;
    let responding = Running::start(Server::new(), echo()).await;
    for (request, status, seen) in requests {
        let expected = format!("[{seen} {status} 0]");
        assert_eq!(
            verdicts(&passing, &[request.as_bytes()]).await,
            expected,
            "{request:?}"
        );
        let mut stream = responding.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, body) = response(&mut stream).await;
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{request:?}: {head}"
        );
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(body, "");
        assert!(closed(&mut stream).await.is_empty());
    }
}

#[tokio::test]
async fn malformed_chunks_end_the_connection() {
    let running = Running::start(Server::new().pass_invalid_requests(true), echo()).await;
    let head = "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = format!("{head}3\nabc\r\n0\r\n\r\n{LOGIN}");
    assert_eq!(
        verdicts(&running, &[bytes.as_bytes()]).await,
        "[POST /x valid failed]"
    );
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_reaches_its_client() {
    let running = Running::start(Server::new(), hello()).await;
    let mut stream = running.connect().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        4 << 20
    );
    let mut request = head.into_bytes();
    request.resize(4 << 20, b'x');
    // The server does not read the body.
    stream.write_all(&request).await.unwrap();
    let (head, _) = response(&mut stream).await;
    assert!(head.starts_with("http/1.1 405"), "{head}");
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_server_accepts_from_several_listeners() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<_> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect();
    tokio::spawn(Server::new().serve(listeners, hello(), std::future::pending()));
    for address in addresses {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(exchange(&mut stream, GET).await.1, "hello");
    }
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn http2_is_served_by_prior_knowledge_and_without_connection_headers() {
    use http_body_util::Empty;
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
