//! Servers on free loopback ports, and clients that write requests as bytes.
#![cfg(test)]

mod heads;
#[cfg(feature = "http2")]
mod http2;
mod limits;
mod serving;
mod shutdown;
mod time_outs;
mod unread_bodies;

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use bounded_server::{CancellationToken, GraceExceeded, Server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const GET_LATE: &[u8] = b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n";

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

    /// Connects and sends `request`.
    async fn send(&self, request: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        stream
    }

    async fn stop(self) -> Result<(), GraceExceeded> {
        self.shutdown.cancel();
        timeout(PATIENCE, self.served).await.unwrap().unwrap()
    }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// Returns a router that notifies the test of each request for `/late`, and responds to it after a cancellation.
fn late() -> (Router, mpsc::UnboundedReceiver<()>, CancellationToken) {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let respond = CancellationToken::new();
    let responding = respond.clone();
    let handler = move || async move {
        arrived.send(()).unwrap();
        responding.cancelled().await;
        "late"
    };
    (hello().route("/late", get(handler)), arrivals, respond)
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

/// Waits for the server to close the connection, and returns what it sent before. A reset counts, because the
/// client may have been writing.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    rest
}
