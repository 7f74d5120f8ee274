//! Senders that stop in the middle of a request, or are many, do not hold up others.

use std::time::{Duration, Instant};

use prost::encoding;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    http::post,
    requests::{ADDRESSES, traces},
};
use crate::support::{Running, within};

/// Maximum time for another sender's request.
const PROMPT: Duration = Duration::from_secs(1);

/// Number of bytes that the receivers read at the same time, at most.
const LIMIT: usize = 48 << 20;

/// Opens a connection and sends the beginning of a request.
async fn begin(observatory: &Running, framing: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(observatory.addresses.http).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n{framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

async fn assert_prompt(observatory: &Running) {
    let started = Instant::now();
    let body = serde_json::to_vec(&traces(1)).unwrap();
    let response = post(
        observatory,
        ADDRESSES[0],
        &[("content-type", "application/json")],
        body,
    )
    .await;
    assert_eq!(response.status(), 200);
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn senders_that_announce_large_bodies_and_stop_hold_up_nobody() {
    let observatory = Running::start().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(begin(&observatory, "content-length: 16777216", b"").await);
        streams.push(begin(&observatory, "transfer-encoding: chunked", b"1\r\n\0\r\n").await);
        streams.push(begin(&observatory, "content-length: 16777216", &vec![0; 100_000]).await);
    }
    assert_prompt(&observatory).await;
    drop(streams);
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn senders_that_fill_the_memory_for_bodies_and_stop_are_rejected() {
    let observatory = Running::start().await;
    let part = vec![0; 15 << 20];
    let mut streams = Vec::new();
    for _ in 0..=LIMIT / part.len() + 2 {
        // A sender that waits for memory does not read all of its part.
        let begun = begin(&observatory, "content-length: 16777216", &part);
        if let Ok(stream) = tokio::time::timeout(Duration::from_secs(2), begun).await {
            streams.push(stream);
        }
    }
    assert_prompt(&observatory).await;
    let mut response = [0; 12];
    within(streams[0].read_exact(&mut response)).await.unwrap();
    assert_eq!(&response, b"HTTP/1.1 429");
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn large_bodies_that_arrive_together_are_all_accepted() {
    let observatory = Running::start().await;
    // An unknown field.
    let mut body = Vec::new();
    encoding::bytes::encode(1000, &vec![7; 15 << 20], &mut body);
    let framing = format!("content-length: {}", body.len());
    let mut senders = JoinSet::new();
    for _ in 0..8 {
        let mut stream = begin(&observatory, &framing, b"").await;
        let body = body.clone();
        senders.spawn(async move {
            stream.write_all(&body).await.unwrap();
            let mut response = [0; 12];
            within(stream.read_exact(&mut response)).await.unwrap();
            response
        });
    }
    for response in within(senders.join_all()).await {
        assert_eq!(&response, b"HTTP/1.1 200");
    }
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn idle_connections_hold_up_nobody() {
    let observatory = Running::start().await;
    let mut idle = Vec::new();
    for address in [observatory.addresses.http, observatory.addresses.pages] {
        for _ in 0..600 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
    }
    assert_prompt(&observatory).await;
    let started = Instant::now();
    observatory.json("/status").await;
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
    drop(idle);
    observatory.stop().await.unwrap();
}
