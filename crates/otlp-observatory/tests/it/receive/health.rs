//! The health endpoint and graceful shutdown.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Running, client, within};

async fn health(observatory: &Running, path: &str) -> (u16, Value) {
    let address = observatory.addresses.health.unwrap();
    let response = within(client().get(format!("http://{address}{path}")).send())
        .await
        .unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    (
        status,
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap(),
    )
}

#[tokio::test]
async fn health_matches_the_collectors_at_any_path() {
    let observatory = Running::start().await;
    for path in ["", "/", "/health/status", "/?verbose"] {
        let (status, body) = health(&observatory, path).await;
        assert_eq!(status, 200);
        assert_eq!(body["status"], "Server available");
        assert!(body["uptime"].as_str().unwrap().ends_with('s'), "{body}");
        let since: jiff::Timestamp = body["upSince"].as_str().unwrap().parse().unwrap();
        assert!(since > jiff::Timestamp::UNIX_EPOCH);
    }
}

#[tokio::test]
async fn during_shutdown_health_is_503_and_requests_finish() {
    let observatory = Running::start().await;
    let mut stream = TcpStream::connect(observatory.addresses.http).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                expect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server sends 100 Continue when it starts to read the body.
    let mut response = [0; 1024];
    let length = within(stream.read(&mut response)).await.unwrap();
    assert!(response[..length].starts_with(b"HTTP/1.1 100 "));

    observatory.request_stop();
    within(async {
        while health(&observatory, "/").await.0 != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let (_, body) = health(&observatory, "/").await;
    assert_eq!(body["status"], "Server not available");

    stream.write_all(b"{}").await.unwrap();
    let length = within(stream.read(&mut response)).await.unwrap();
    assert!(response[..length].starts_with(b"HTTP/1.1 200 "));
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn an_unfinished_request_does_not_block_shutdown() {
    let observatory = Running::start().await;
    let mut stream = TcpStream::connect(observatory.addresses.http).await.unwrap();
    let head =
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    observatory.stop().await.unwrap();
    let mut rest = Vec::new();
    // The connection is closed or reset.
    let _ = within(stream.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test]
async fn ports_are_free_after_shutdown() {
    let observatory = Running::start().await;
    let addresses = observatory.addresses;
    observatory.stop().await.unwrap();
    for address in [
        addresses.http,
        addresses.grpc.unwrap(),
        addresses.health.unwrap(),
        addresses.pages,
    ] {
        assert!(
            TcpStream::connect(address).await.is_err(),
            "{address} still accepts connections"
        );
    }
}
