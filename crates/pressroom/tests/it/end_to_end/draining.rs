//! Shutdown of `serve` behind a load balancer that reacts late.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::installation::Installation;
use crate::support::{eventually, raw};

const LIVE: &[u8] = b"GET /api/health/live HTTP/1.1\r\nHost: x\r\n\r\n";

async fn request_live(stream: &mut TcpStream) -> raw::Response {
    stream.write_all(LIVE).await.unwrap();
    raw::read_response(stream, false).await
}

// The delay is far longer than the test takes even on a slow machine; a second signal ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_the_delay_requests_are_served_and_each_response_closes_its_connection() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve_with(&[("SHUTDOWN_DELAY", "3600")]).await;
    let mut open = TcpStream::connect(api).await.unwrap();
    for _ in 0..2 {
        let response = request_live(&mut open).await;
        assert_eq!((response.status, response.header("connection")), (200, None));
    }

    serve.send_sigterm();
    eventually("readiness to turn 503", async || {
        let ready = raw::request(api, "GET", "/api/health/ready", None, None).await;
        (ready.status == 503).then_some(())
    })
    .await;

    let last = request_live(&mut open).await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(open.read(&mut [0]).await.unwrap(), 0, "closed after the response");
    let token = raw::register(api, "alice@example.com").await;
    let article = json!({"title": "At the end", "body": "x"});
    let created = raw::request(api, "POST", "/api/articles/", Some(&token), Some(&article)).await;
    assert_eq!(created.status, 201);
    installation.waiting_message().await;

    assert_eq!(serve.terminate().await.code(), Some(143));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_delay_the_process_publishes_its_tasks_and_exits_with_success() {
    let installation = Installation::new().await;
    let (mut serve, api) = installation.serve_with(&[("SHUTDOWN_DELAY", "1")]).await;
    let token = raw::register(api, "alice@example.com").await;
    let article = json!({"title": "At the end", "body": "x"});
    let created = raw::request(api, "POST", "/api/articles/", Some(&token), Some(&article)).await;
    assert_eq!(created.status, 201);

    serve.send_sigterm();
    assert!(serve.wait_for_exit().await.success(), "{}", serve.output());
    assert!(TcpStream::connect(api).await.is_err());
    installation.waiting_message().await;
}
