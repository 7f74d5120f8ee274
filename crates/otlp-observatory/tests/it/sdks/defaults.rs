//! SDKs with their defaults: apart from the name of the service, only the endpoint is set, to each of the two ports. Each
//! sender sends five traces.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::Value;
use telemetry::{
    Service, Span,
    opentelemetry::trace::{Tracer as _, TracerProvider as _},
};

use crate::support::Running;

/// Variable that is set in a sending child process.
const SENDER: &str = "OBSERVATORY_TEST_SENDER";

/// Runs the command that `sender` returns for each port, and asserts that its traces arrive.
async fn assert_arrival(sender: impl Fn() -> Command) {
    let observatory = Running::start().await;
    let addresses = observatory.addresses;
    for (service, address) in [("to-http", addresses.http), ("to-grpc", addresses.grpc.unwrap())] {
        let mut command = sender();
        command.env("OTEL_SERVICE_NAME", service).env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://localhost:{}", address.port()),
        );
        let sent = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let output = String::from_utf8_lossy(&sent.stdout) + String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.success(), "{service}: {output}");
        let are_complete = |found: &Value| found["traces"].as_array().is_some_and(|traces| traces.len() == 5);
        observatory
            .json_when(&format!("/traces?service={service}"), are_complete)
            .await;
    }
    assert_eq!(observatory.json("/status").await["refused"]["requests"], 0);
    observatory.stop().await.unwrap();
}

/// Returns the path in a variable that `scripts/test` sets.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment tells tests where the tools are"
)]
fn tool(variable: &str) -> PathBuf {
    let path = std::env::var(variable);
    path.unwrap_or_else(|_| panic!("{variable} must be set for this test; scripts/test sets it"))
        .into()
}

fn sender(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn python_with_automatic_instrumentation() {
    let python = tool("TEST_OTEL_PYTHON");
    assert_arrival(|| {
        let mut command = Command::new(python.with_file_name("opentelemetry-instrument"));
        command.arg(&python).arg(sender("app.py")).env_clear();
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node() {
    let modules = tool("TEST_OTEL_MODULES");
    assert_arrival(|| {
        let mut command = Command::new("node");
        command.arg(sender("node/app.cjs")).env("NODE_PATH", &modules);
        command
    })
    .await;
}

/// Sends in the child process, receives in the parent process.
fn send_or_receive(test: &str, send: impl FnOnce()) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os(SENDER).is_some() {
        // Exporters over gRPC need a runtime, and those over HTTP must not block it.
        let _entered = runtime.enter();
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
        return send();
    }
    runtime.block_on(assert_arrival(|| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = format!("sdks::defaults::{test}");
        command.args([&test, "--exact"]).env_clear().env(SENDER, "1");
        command
    }));
}

#[test]
fn otel_service() {
    send_or_receive("otel_service", || {
        let telemetry = telemetry::init(Service::new("unnamed", "1.0.0")).unwrap();
        tokio::runtime::Handle::current().block_on(async {
            for _ in 0..5 {
                Span::internal("work")
                    .run(async { Ok::<_, std::convert::Infallible>(()) })
                    .await
                    .unwrap();
            }
        });
        telemetry.shutdown(Duration::from_secs(20)).unwrap();
    });
}

fn send_with(exporter: SpanExporter) {
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let tracer = provider.tracer("test");
    for _ in 0..5 {
        tracer.in_span("work", |_| {});
    }
    provider.shutdown().unwrap();
}

#[test]
fn rust_over_http_in_protobuf() {
    send_or_receive("rust_over_http_in_protobuf", || {
        send_with(SpanExporter::builder().with_http().build().unwrap());
    });
}

#[test]
fn rust_over_http_in_json() {
    send_or_receive("rust_over_http_in_json", || {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpJson);
        send_with(exporter.build().unwrap());
    });
}

#[test]
fn rust_over_grpc() {
    send_or_receive("rust_over_grpc", || {
        send_with(SpanExporter::builder().with_tonic().build().unwrap());
    });
}
