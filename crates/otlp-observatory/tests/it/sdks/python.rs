//! Tests of the OpenTelemetry SDK for Python with each of its three protocols.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::Running;

/// Runs `tests/sdk/send.py` and returns its trace id.
async fn send(protocol: &'static str, endpoint: String) -> String {
    let sent = tokio::task::spawn_blocking(move || {
        Command::new(interpreter())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/send.py"))
            .args([protocol, &endpoint])
            .env_clear()
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let errors = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(sent.stdout).unwrap().trim().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "the environment names the interpreter")]
fn interpreter() -> String {
    std::env::var("TEST_OTEL_PYTHON")
        .expect("TEST_OTEL_PYTHON must name a Python interpreter that has the OpenTelemetry SDK; scripts/test sets it")
}

/// Masked attributes of `send.py`.
fn attributes() -> Value {
    json!({
        "text": "grüße\n\"quoted\"",
        "mail": "al***@example.com",
        "integer": -42,
        // Exceeds the exact range of JavaScript numbers.
        "large": "4611686018427387904",
        "number": 0.25,
        "whole": 3.0,
        "flag": true,
        "texts": ["a", "b"],
        "integers": [1, 2],
        "numbers": [0.5, 1.5],
        "flags": [true, false],
        "bytes": "AP8=",
    })
}

async fn assert_python_telemetry(protocol: &'static str) {
    let observatory = Running::start().await;
    let addresses = observatory.addresses;
    let address = if protocol == "grpc" {
        addresses.grpc.unwrap()
    } else {
        addresses.http
    };
    let trace_id = send(protocol, format!("http://{address}")).await;
    let service = format!("python-{}", protocol.replace('/', "-"));

    let is_complete = |trace: &Value| {
        let length = |list: &str| trace[list].as_array().map_or(0, Vec::len);
        (length("spans"), length("logs")) == (2, 1)
    };
    let trace = observatory
        .json_when(&format!("/traces/{trace_id}"), is_complete)
        .await;
    assert_eq!(trace["trace_id"], trace_id);
    assert_eq!(trace["root"], json!({"service": service, "name": "root"}));
    assert_spans(&trace, &service);
    assert_log(&trace, &service);
    assert_metrics(&observatory, &service, &trace).await;
    let refused = &observatory.json("/status").await["refused"]["requests"];
    assert_eq!(refused, 0);
    observatory.stop().await.unwrap();
}

fn assert_spans(trace: &Value, service: &str) {
    let [root, child] = &trace["spans"].as_array().unwrap()[..] else {
        panic!("{trace:#}");
    };
    assert_eq!(root["parent_span_id"], Value::Null);
    assert_eq!(root["service"], service);
    assert_eq!(root["resource"]["cores"], 2);
    assert_eq!(root["scope"], "send.py");
    assert_eq!(root["kind"], "server");
    assert_eq!(root["status"], "ok");
    assert_eq!(root["attributes"], attributes());
    assert_eq!(root["events"][0]["name"], "noticed");
    assert_eq!(root["events"][0]["attributes"], json!({"count": 7}));
    assert_eq!(
        root["links"],
        json!([{
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "span_id": "00f067aa0ba902b7",
            "attributes": {"why": "retry"},
        }])
    );

    assert_eq!(child["parent_span_id"], root["span_id"]);
    assert_eq!(child["name"], "child");
    assert_eq!(child["kind"], "client");
    assert_eq!(child["status"], "error");
    assert_eq!(child["status_message"], "ValueError: no such article");
    let exception = &child["events"][0];
    assert_eq!(exception["name"], "exception");
    assert_eq!(exception["attributes"]["exception.type"], "ValueError");
    assert_eq!(exception["attributes"]["exception.message"], "no such article");
    assert!(child["duration_ns"].as_u64().unwrap() <= root["duration_ns"].as_u64().unwrap());
}

fn assert_log(trace: &Value, service: &str) {
    let log = &trace["logs"][0];
    assert_eq!(log["service"], service);
    assert_eq!(log["scope"], "send.py");
    assert_eq!(log["time_unix_nano"], "1795342907000000001");
    assert_eq!(log["level"], "warn");
    assert_eq!(log["severity_text"], "WARN");
    assert_eq!(
        log["body"],
        json!({"said": "hello", "to": ["bo***@example.com", 2]})
    );
    assert_eq!(log["attributes"], attributes());
    assert_eq!(log["event_name"], "greeting");
    assert_eq!(log["trace_id"], trace["trace_id"]);
    assert_eq!(log["span_id"], trace["spans"][0]["span_id"]);
}

async fn assert_metrics(observatory: &Running, service: &str, trace: &Value) {
    let is_complete = |status: &Value| status["kept"]["points"] == 4;
    observatory.json_when("/status", is_complete).await;

    let counter = metric(observatory, "sent.total", service).await;
    assert_eq!(counter["type"], "counter");
    assert_eq!(counter["unit"], "{thing}");
    assert_eq!(counter["description"], "Things");
    assert_eq!(counter["series"][0]["attributes"], json!({"kind": "a"}));
    assert_eq!(counter["series"][0]["points"][0]["value"], 5.0);

    let open = metric(observatory, "sent.open", service).await;
    assert_eq!(open["type"], "updowncounter");
    assert_eq!(open["series"][0]["points"][0]["value"], -2.0);

    let level = metric(observatory, "sent.level", service).await;
    assert_eq!(level["type"], "gauge");
    assert_eq!(level["series"][0]["points"][0]["value"], 36.6);

    let histogram = metric(observatory, "sent.duration", service).await;
    assert_eq!(histogram["type"], "histogram");
    assert_eq!(histogram["unit"], "s");
    let point = &histogram["series"][0]["points"][0];
    assert_eq!(point["count"], 3);
    assert_eq!(point["sum"], 5.55);
    let exemplars = histogram["exemplars"].as_array().unwrap();
    assert!(!exemplars.is_empty());
    for exemplar in exemplars {
        assert_eq!(exemplar["trace_id"], trace["trace_id"]);
        assert_eq!(exemplar["span_id"], trace["spans"][0]["span_id"]);
    }
}

async fn metric(observatory: &Running, name: &str, service: &str) -> Value {
    let metric = observatory.json(&format!("/metrics/{name}")).await;
    assert_eq!(metric["name"], name);
    assert_eq!(metric["service"], service);
    metric
}

#[tokio::test]
async fn python_telemetry_over_http_in_protobuf() {
    assert_python_telemetry("http/protobuf").await;
}

#[tokio::test]
async fn python_telemetry_over_http_in_json() {
    assert_python_telemetry("http/json").await;
}

#[tokio::test]
async fn python_telemetry_over_grpc() {
    assert_python_telemetry("grpc").await;
}
