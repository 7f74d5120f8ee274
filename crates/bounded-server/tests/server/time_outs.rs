//! Clients that send or read slowly, or not at all.

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use bounded_server::Server;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{GET, PATIENCE, Running, closed, exchange, hello};

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_disconnected() {
    let server = Server::new().header_read_timeout(Duration::from_millis(100));
    let running = Running::start(server, hello()).await;
    let mut stream = running.send(&GET[..10]).await;
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
    let until_reset = async {
        let mut next: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ";
        while write.write_all(next).await.is_ok() {
            // Far below the time-out, which therefore limits the whole head rather than the time between its bytes.
            tokio::time::sleep(Duration::from_millis(20)).await;
            next = b"a";
        }
    };
    let until_closed = async {
        let mut rest = Vec::new();
        let _ = read.read_to_end(&mut rest).await;
        rest
    };
    let rest = timeout(PATIENCE, async {
        tokio::select! {
            rest = until_closed => rest,
            () = until_reset => Vec::new(),
        }
    });
    assert!(rest.await.expect("the connection stays open").is_empty());
}

#[tokio::test]
async fn an_idle_connection_has_its_own_time_out() {
    let server = Server::new()
        .header_read_timeout(Duration::from_millis(100))
        .keep_alive_timeout(Duration::from_secs(3));
    let running = Running::start(server, hello()).await;
    let mut stream = running.connect().await;
    for _ in 0..2 {
        exchange(&mut stream, GET).await;
        // Longer than the time-out of a head, which must not apply between requests.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    exchange(&mut stream, GET).await;
    let start = Instant::now();
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
        // Longer than both time-outs.
        tokio::time::sleep(Duration::from_millis(300)).await;
        "late"
    };
    let running = Running::start(server, Router::new().route("/", get(handler))).await;
    let mut stream = running.connect().await;
    assert_eq!(exchange(&mut stream, GET).await.1, "late");
    assert!(closed(&mut stream).await.is_empty());
}

/// Length of a response that is larger than the buffers of the sockets.
const LARGE: usize = 16 << 20;

fn large() -> Router {
    hello().route("/large", get(|| async { vec![b'x'; LARGE] }))
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
            // A pause between two attempts, because waiting for readiness would not tell a reset from a response.
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
    let read = async {
        let mut byte = [0];
        // After a reset, the client can still read what it has received.
        while stream.take_error().unwrap().is_none() && stream.read_exact(&mut byte).await.is_ok() {
            // At most 30 bytes in each write time-out, far less than the 16 KiB that it requires.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, read).await.expect("the connection stays open");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    // A client on a busy machine may stall for almost as long.
    let write_timeout = Duration::from_secs(2);
    let server = Server::new().write_timeout(write_timeout);
    let running = Running::start(server, large()).await;
    let mut stream = request_large(&running).await;
    let start = Instant::now();
    let read = async {
        let mut total = 0;
        let mut buffer = vec![0; 16 << 10];
        while total < LARGE {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "closed after {total} bytes");
            total += read;
            if start.elapsed() < 3 * write_timeout {
                // Too slow to finish within three time-outs, and much faster than each of them requires.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    assert!(start.elapsed() > 3 * write_timeout, "{:?}", start.elapsed());
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
