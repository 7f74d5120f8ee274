//! Requests whose body the service does not read.

use axum::{Router, http::StatusCode, routing::post};
use bounded_server::Server;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

use crate::{PATIENCE, Running, closed, response};

/// Starts a server that rejects every request immediately, and notifies the test of each.
async fn rejecting() -> (Running, mpsc::UnboundedReceiver<()>) {
    let (rejected, rejections) = mpsc::unbounded_channel();
    let reject = move || {
        rejected.send(()).unwrap();
        std::future::ready(StatusCode::UNAUTHORIZED)
    };
    let router = Router::new().route("/", post(reject));
    (Running::start(Server::new(), router).await, rejections)
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn head(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n")
}

#[tokio::test]
async fn the_connection_is_kept_when_the_rest_of_a_small_body_arrives() {
    let (running, mut rejections) = rejecting().await;
    let mut stream = running.connect().await;
    let bodies = [
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
    ];
    for (fields, body) in bodies.into_iter().cycle().take(6) {
        send(&mut stream, &head(fields)).await;
        timeout(PATIENCE, rejections.recv()).await.unwrap().unwrap();
        send(&mut stream, body).await;
        let (head, _) = response(&mut stream).await;
        assert!(head.starts_with("http/1.1 401"), "{head}");
        assert!(!head.contains("connection"), "{head}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_because_of_an_unread_body_is_announced() {
    let (running, _rejections) = rejecting().await;
    for fields in [
        // The body does not arrive in time.
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        // The body is too large to be discarded.
        "Content-Length: 1000000",
        // The client waits to be asked for the body.
        "Content-Length: 5\r\nExpect: 100-continue",
    ] {
        let mut stream = running.connect().await;
        send(&mut stream, &head(fields)).await;
        let (head, _) = response(&mut stream).await;
        assert!(head.starts_with("http/1.1 401"), "{fields}: {head}");
        assert!(head.contains("connection: close"), "{fields}: {head}");
        assert_eq!(closed(&mut stream).await, b"", "{fields}");
    }
}

#[tokio::test]
async fn an_endless_chunked_body_closes_the_connection() {
    let (running, _rejections) = rejecting().await;
    let mut stream = running.connect().await;
    send(&mut stream, &head("Transfer-Encoding: chunked")).await;
    let (mut reader, mut writer) = stream.into_split();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let endless = async { while writer.write_all(chunk.as_bytes()).await.is_ok() {} };
    let read = async {
        let mut text = Vec::new();
        let _ = reader.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    };
    let (_, response) = timeout(PATIENCE, async { tokio::join!(endless, read) })
        .await
        .unwrap();
    assert!(response.contains("connection: close"), "{response}");
}
