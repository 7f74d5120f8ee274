//! Tests of the `telemetry` crate with each of its protocols. Each test starts itself as a child process that sends,
//! because a process has only one set of providers.

use std::{convert::Infallible, process::Command, time::Duration};

use serde_json::{Value, json};
use telemetry::{KeyValue, Service, Span};

use crate::support::Running;

/// Variable that is set in the sending child process.
const SENDER: &str = "OBSERVATORY_TEST_SENDER";

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn send() {
    let telemetry = telemetry::init(Service::new("rust", "1.0.0")).unwrap();
    run(async {
        let work = Span::internal("work")
            .attribute(KeyValue::new("user.id", 7))
            .attribute(KeyValue::new("mail", "alice@example.com"))
            .run(async {
                telemetry::warn!(attempt = 2, "bob@example.com is waiting");
                Ok::<_, Infallible>(())
            });
        Span::internal("request").run(work).await.unwrap();
    });
    telemetry.shutdown(Duration::from_secs(20)).unwrap();
}

async fn receive(test: &'static str, protocol: &'static str) {
    let observatory = Running::start().await;
    let addresses = observatory.addresses;
    let address = if protocol == "grpc" {
        addresses.grpc.unwrap()
    } else {
        addresses.http
    };
    let sent = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--test-threads=1"])
            .env_clear()
            .env(SENDER, "1")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let output = String::from_utf8_lossy(&sent.stdout);
    assert!(sent.status.success() && output.contains("1 passed"), "{output}");

    let is_received = |found: &Value| found["logs"].as_array().is_some_and(|logs| logs.len() == 1);
    let found = observatory
        .json_when("/logs?service=rust&text=waiting", is_received)
        .await;
    let log = &found["logs"][0];
    assert_eq!(log["body"], "bo***@example.com is waiting");
    assert_eq!(log["level"], "warn");
    assert_eq!(log["attributes"]["attempt"], 2);

    let path = format!("/traces/{}", log["trace_id"].as_str().unwrap());
    let is_whole = |trace: &Value| trace["spans"].as_array().is_some_and(|spans| spans.len() == 2);
    let trace = observatory.json_when(&path, is_whole).await;
    let [request, work] = &trace["spans"].as_array().unwrap()[..] else {
        panic!("{trace:#}");
    };
    assert_eq!(request["name"], "request");
    assert_eq!(work["name"], "work");
    assert_eq!(work["parent_span_id"], request["span_id"]);
    assert_eq!(work["resource"]["service.version"], "1.0.0");
    assert_eq!(work["attributes"]["user.id"], 7);
    assert_eq!(work["attributes"]["mail"], "al***@example.com");
    assert_eq!(log["span_id"], work["span_id"]);
    assert_eq!(trace["logs"], json!([log]));
    assert_eq!(observatory.json("/status").await["refused"]["requests"], 0);
    observatory.stop().await.unwrap();
}

/// Sends in the child process, receives in the parent process.
fn send_or_receive(test: &'static str, protocol: &'static str) {
    if std::env::var_os(SENDER).is_some() {
        send();
    } else {
        run(receive(test, protocol));
    }
}

#[test]
fn rust_telemetry_over_http_in_protobuf() {
    let test = "sdks::rust::rust_telemetry_over_http_in_protobuf";
    send_or_receive(test, "http/protobuf");
}

#[test]
fn rust_telemetry_over_http_in_json() {
    let test = "sdks::rust::rust_telemetry_over_http_in_json";
    send_or_receive(test, "http/json");
}

#[test]
fn rust_telemetry_over_grpc() {
    let test = "sdks::rust::rust_telemetry_over_grpc";
    send_or_receive(test, "grpc");
}
