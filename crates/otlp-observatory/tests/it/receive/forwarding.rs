//! Forwarding to a backend, which is another observatory.

use std::path::PathBuf;

use opentelemetry_proto::tonic::trace::v1::Span;
use otlp_observatory::{Config, Forwarding};
use prost::Message as _;
use serde_json::{Value, json};

use super::requests::{span, spans};
use crate::support::{Running, client, config, within};

/// Temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("observatory-it-{}-{name}", std::process::id()));
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn forwarding_to(endpoint: &str, queue: &Folder) -> Config {
    let forwarding = Forwarding::new(endpoint.parse().unwrap(), &queue.0).queue_limit(16 << 20);
    config().forward(forwarding)
}

async fn accept(observatory: &Running, span: Span) {
    let request = client()
        .post(observatory.http("/v1/traces"))
        .header("content-type", "application/x-protobuf")
        .body(spans([span]).encode_to_vec());
    assert_eq!(within(request.send()).await.unwrap().status(), 200);
}

fn has_spans(count: usize) -> impl Fn(&Value) -> bool {
    move |trace| {
        trace["spans"]
            .as_array()
            .is_some_and(|spans| spans.len() == count)
    }
}

const TRACE: &str = "/traces/01010101010101010101010101010101";

#[tokio::test]
async fn accepted_telemetry_is_masked_and_forwarded_at_shutdown() {
    let backend = Running::start().await;
    let folder = Folder::new("shutdown");
    let observatory = Running::start_with(forwarding_to(&backend.http(""), &folder)).await;
    for number in 1..=50 {
        let name = format!("mail to alice{number}@example.com");
        accept(&observatory, Span { name, ..span(number) }).await;
    }
    observatory.stop().await.unwrap();
    let trace = backend.json_when(TRACE, has_spans(50)).await;
    for span in trace["spans"].as_array().unwrap() {
        assert_eq!(span["name"], "mail to al***@example.com");
    }
    backend.stop().await.unwrap();
}

#[tokio::test]
async fn without_masking_the_pages_show_what_was_received_and_forwarded_telemetry_is_masked() {
    let backend = Running::start_with(config().mask(false)).await;
    let folder = Folder::new("unmasked");
    let observatory = Running::start_with(forwarding_to(&backend.http(""), &folder).mask(false)).await;
    let name = "mail to alice@example.com";
    accept(
        &observatory,
        Span {
            name: name.to_owned(),
            ..span(1)
        },
    )
    .await;
    let shown = observatory.json_when(TRACE, has_spans(1)).await;
    assert_eq!(shown["spans"][0]["name"], name);
    observatory.stop().await.unwrap();
    let forwarded = backend.json_when(TRACE, has_spans(1)).await;
    assert_eq!(forwarded["spans"][0]["name"], "mail to al***@example.com");
    backend.stop().await.unwrap();
}

#[tokio::test]
async fn undelivered_telemetry_is_forwarded_after_a_restart() {
    let folder = Folder::new("restart");
    let backend = Running::start().await;
    let endpoint = backend.http("");
    let address = backend.addresses.http;
    backend.stop().await.unwrap();

    let observatory = Running::start_with(forwarding_to(&endpoint, &folder)).await;
    accept(&observatory, span(1)).await;
    let is_failing = |status: &Value| status["forwarding"]["failing_since_unix_nano"].is_string();
    let status = observatory.json_when("/status", is_failing).await;
    assert_eq!(status["received"], json!({"spans": 1, "logs": 0, "points": 0}));
    observatory.stop().await.unwrap();

    let backend = Running::start_with(config().http(address)).await;
    let observatory = Running::start_with(forwarding_to(&endpoint, &folder)).await;
    backend.json_when(TRACE, has_spans(1)).await;
    observatory.stop().await.unwrap();
    backend.stop().await.unwrap();
}

#[tokio::test]
async fn an_unencrypted_remote_endpoint_is_an_error() {
    let folder = Folder::new("plain");
    let observatory = Running::start_with(forwarding_to("http://backend.example/", &folder)).await;
    let error = observatory.stop().await.unwrap_err();
    assert!(error.to_string().contains("https"), "{error}");
}
