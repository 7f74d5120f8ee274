//! Responses to requests whose body the service does not read.
#![cfg(test)]

use std::{net::SocketAddr, time::Duration};

use axum::{Router, http::StatusCode, routing::post};
use bounded_server::Server;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Time limit of every wait; a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a server that rejects every request at once, and reports each.
async fn rejecting() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (rejected, rejections) = mpsc::unbounded_channel();
    let reject = move || {
        rejected.send(()).unwrap();
        std::future::ready(StatusCode::UNAUTHORIZED)
    };
    let router = Router::new().route("/", post(reject));
    tokio::spawn(Server::new().serve(listener, router, std::future::pending()));
    (address, rejections)
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn head(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n")
}

/// Reads the head of a response, which has no body.
async fn response(stream: &mut TcpStream) -> String {
    let read = async {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            text.push(char::from(stream.read_u8().await.unwrap()));
        }
        text
    };
    timeout(PATIENCE, read).await.unwrap()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap() == 0
}

#[tokio::test]
async fn the_connection_is_kept_when_the_rest_of_a_small_body_arrives() {
    let (address, mut rejections) = rejecting().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bodies = [
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
    ];
    for (fields, body) in bodies.into_iter().cycle().take(6) {
        send(&mut stream, &head(fields)).await;
        timeout(PATIENCE, rejections.recv()).await.unwrap().unwrap();
        send(&mut stream, body).await;
        let response = response(&mut stream).await;
        assert!(response.starts_with("HTTP/1.1 401"), "{response}");
        assert!(!response.contains("connection"), "{response}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_because_of_an_unread_body_is_announced() {
    let (address, _rejections) = rejecting().await;
    for fields in [
        // The body does not arrive in time.
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        // The body is too large to be discarded.
        "Content-Length: 1000000",
        // The client waits to be asked for the body.
        "Content-Length: 5\r\nExpect: 100-continue",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, &head(fields)).await;
        let response = response(&mut stream).await;
        assert!(response.starts_with("HTTP/1.1 401"), "{fields}: {response}");
        assert!(response.contains("connection: close"), "{fields}: {response}");
        assert!(is_closed(&mut stream).await, "{fields}");
    }
}

#[tokio::test]
async fn an_endless_chunked_body_closes_the_connection() {
    let (address, _rejections) = rejecting().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    send(&mut stream, &head("Transfer-Encoding: chunked")).await;
    let (mut reader, mut writer) = stream.split();
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
