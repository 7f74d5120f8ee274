//! How `serve` ends when something stands before it that takes a while to notice.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::installation::Installation;
use crate::support::{eventually, raw};

const LIVE: &[u8] = b"GET /api/health/live HTTP/1.1\r\nHost: x\r\n\r\n";

async fn ask(stream: &mut TcpStream) -> raw::Response {
    stream.write_all(LIVE).await.unwrap();
    raw::read_response(stream, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_the_delay_has_passed_requests_are_answered_and_connections_closed_with_the_answer() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve_with(&[("SHUTDOWN_DELAY", "3")]).await;
    let mut kept = TcpStream::connect(api).await.unwrap();
    for _ in 0..2 {
        let answer = ask(&mut kept).await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }

    serve.send_sigterm();
    eventually("readiness to end", async || {
        let ready = raw::request(api, "GET", "/api/health/ready", None, None).await;
        (ready.status == 503).then_some(())
    })
    .await;

    let last = ask(&mut kept).await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(kept.read(&mut [0]).await.unwrap(), 0, "closed after the answer");
    let token = raw::register(api, "alice@example.com").await;
    let article = json!({"title": "At the end", "body": "x"});
    let created = raw::request(api, "POST", "/api/articles/", Some(&token), Some(&article)).await;
    assert_eq!(created.status, 201);

    assert!(serve.wait_for_exit().await.success(), "{}", serve.output());
    assert!(TcpStream::connect(api).await.is_err());
    installation.waiting_message().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_delay() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve_with(&[("SHUTDOWN_DELAY", "3600")]).await;
    serve.send_sigterm();
    eventually("readiness to end", async || {
        let ready = raw::request(api, "GET", "/api/health/ready", None, None).await;
        (ready.status == 503).then_some(())
    })
    .await;
    assert_eq!(serve.terminate().await.code(), Some(143));
}
