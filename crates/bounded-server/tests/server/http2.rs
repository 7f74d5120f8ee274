//! HTTP/2 by prior knowledge.

use std::time::Duration;

use axum::{Router, routing::post};
use bounded_server::{CancellationToken, Server};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::{GET, PATIENCE, Running, closed, exchange, hello};

/// First bytes of a client of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn either() -> Server {
    Server::new().accept_http2(true)
}

#[tokio::test]
async fn http2_is_served_by_prior_knowledge_and_without_connection_headers() {
    let draining = CancellationToken::new();
    draining.cancel();
    let running = Running::start(either().drain_on(draining), hello()).await;
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

#[tokio::test]
async fn http1_is_served_beside_http2() {
    let router = hello().route("/echo", post(async |body: String| body));
    let running = Running::start(either(), router).await;
    let mut stream = running.connect().await;
    for _ in 0..2 {
        let (head, body) = exchange(&mut stream, GET).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body, "hello");
    }
    // A method that starts as the preface does, one byte at a time.
    let mut stream = running.connect().await;
    for byte in b"PRINT / HTTP/1.1\r\nHost: x\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let (head, _) = exchange(&mut stream, b"\r\n").await;
    assert!(head.starts_with("http/1.1 405"), "{head}");
    let post =
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (_, body) = exchange(&mut stream, post).await;
    assert_eq!(body.as_bytes(), PREFACE);
    assert_eq!(running.stop().await, Ok(()));
}

#[tokio::test]
async fn an_incomplete_preface_is_closed_in_time() {
    let server = either().header_read_timeout(Duration::from_millis(200));
    let running = Running::start(server, hello()).await;
    for start in [0, 1, PREFACE.len() - 1] {
        let mut stream = running.send(&PREFACE[..start]).await;
        assert_eq!(closed(&mut stream).await, b"");
    }
    assert_eq!(running.stop().await, Ok(()));
}

#[tokio::test]
async fn bytes_that_are_not_http_are_refused() {
    let running = Running::start(either(), Router::new()).await;
    for bytes in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut stream = running.send(bytes).await;
        let answer = closed(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
    }
    assert_eq!(running.stop().await, Ok(()));
}
