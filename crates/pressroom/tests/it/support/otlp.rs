//! An OTLP receiver (http/protobuf) that stores what it receives and checks it against the telemetry
//! registry.
//!
//! An undeclared name, or a name with another type, unit, kind or instrument, fails the test that owns the receiver.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message as _;
use telemetry_registry::{Finding, Layout, Registry};
use tokio::net::TcpListener;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../config/telemetry-registry.yaml"
    );
    Registry::load(&Layout::read(std::path::Path::new(path)).unwrap()).unwrap()
});

/// Received telemetry, with the name of the sending service.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<(String, Span)>,
    metrics: Vec<(String, Metric)>,
    logs: Vec<(String, LogRecord)>,
    /// All strings in the payloads.
    texts: Vec<String>,
    /// The encoded payloads.
    raw: Vec<Vec<u8>>,
    /// Deviations from the registry.
    findings: BTreeSet<Finding>,
}

/// A running receiver, stopped with the test's runtime.
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
        };
        let received = receiver.received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = received.clone();
                let service = service_fn(move |request| receive(request, received.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the spans of a trace, each with the name of its service.
    pub fn trace(&self, trace_id: &str) -> Vec<(String, Span)> {
        let received = self.received.lock().unwrap();
        let of_trace = |(_, span): &&(String, Span)| hex(&span.trace_id) == trace_id;
        received.spans.iter().filter(of_trace).cloned().collect()
    }

    /// Returns the log records of a trace, each with the name of its service.
    pub fn logs(&self, trace_id: &str) -> Vec<(String, LogRecord)> {
        let received = self.received.lock().unwrap();
        let of_trace = |(_, log): &&(String, LogRecord)| hex(&log.trace_id) == trace_id;
        received.logs.iter().filter(of_trace).cloned().collect()
    }

    /// Returns all spans, each with the name of its service.
    pub fn spans(&self) -> Vec<(String, Span)> {
        self.received.lock().unwrap().spans.clone()
    }

    /// Returns all log records, each with the name of its service.
    pub fn all_logs(&self) -> Vec<(String, LogRecord)> {
        self.received.lock().unwrap().logs.clone()
    }

    /// Returns the newest export of a metric by a service.
    pub fn metric(&self, service: &str, name: &str) -> Option<Metric> {
        let received = self.received.lock().unwrap();
        let newest = received
            .metrics
            .iter()
            .rfind(|(from, metric)| from == service && metric.name == name);
        newest.map(|(_, metric)| metric.clone())
    }

    /// Returns all exports of a metric by a service, oldest first.
    pub fn metrics(&self, service: &str, name: &str) -> Vec<Metric> {
        let received = self.received.lock().unwrap();
        let of_name = received
            .metrics
            .iter()
            .filter(|(from, metric)| from == service && metric.name == name);
        of_name.map(|(_, metric)| metric.clone()).collect()
    }

    /// Returns the names of the metrics that a service has exported.
    pub fn metric_names(&self, service: &str) -> BTreeSet<String> {
        let received = self.received.lock().unwrap();
        let of_service = received.metrics.iter().filter(|(from, _)| from == service);
        of_service.map(|(_, metric)| metric.name.clone()).collect()
    }

    /// Whether a service has exported a metric named `name`.
    pub fn has_metric(&self, service: &str, name: &str) -> bool {
        self.metric(service, name).is_some()
    }

    /// Returns all strings in the received payloads, including attribute keys.
    pub fn texts(&self) -> Vec<String> {
        self.received.lock().unwrap().texts.clone()
    }

    /// Whether any received payload contains `text`.
    pub fn contains(&self, text: &str) -> bool {
        let received = self.received.lock().unwrap();
        let within = |payload: &Vec<u8>| {
            payload
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        received.raw.iter().any(within)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let received = self.received.lock().unwrap();
        let findings: Vec<String> = received.findings.iter().map(Finding::to_string).collect();
        assert_eq!(findings, Vec::<String>::new());
    }
}

async fn receive(
    request: Request<Incoming>,
    received: Arc<Mutex<Received>>,
) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut received = received.lock().unwrap();
    match path.as_str() {
        "/v1/traces" => {
            let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
            received.texts.extend(texts_in(&request));
            received.findings.extend(REGISTRY.check_traces(&request));
            for of_resource in request.resource_spans {
                let service = service_name(of_resource.resource.as_ref());
                let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                received.spans.extend(spans.map(|span| (service.clone(), span)));
            }
        }
        "/v1/metrics" => {
            let request = ExportMetricsServiceRequest::decode(body.clone()).unwrap();
            received.texts.extend(texts_in(&request));
            received.findings.extend(REGISTRY.check_metrics(&request));
            for of_resource in request.resource_metrics {
                let service = service_name(of_resource.resource.as_ref());
                let metrics = of_resource
                    .scope_metrics
                    .into_iter()
                    .flat_map(|scope| scope.metrics);
                received
                    .metrics
                    .extend(metrics.map(|metric| (service.clone(), metric)));
            }
        }
        "/v1/logs" => {
            let request = ExportLogsServiceRequest::decode(body.clone()).unwrap();
            received.texts.extend(texts_in(&request));
            received.findings.extend(REGISTRY.check_logs(&request));
            for of_resource in request.resource_logs {
                let service = service_name(of_resource.resource.as_ref());
                let logs = of_resource
                    .scope_logs
                    .into_iter()
                    .flat_map(|scope| scope.log_records);
                received.logs.extend(logs.map(|log| (service.clone(), log)));
            }
        }
        other => panic!("unexpected OTLP path {other}"),
    }
    received.raw.push(body.to_vec());
    Ok(Response::new(Empty::new()))
}

/// Returns all strings in a protobuf message.
fn texts_in(message: &impl serde::Serialize) -> Vec<String> {
    fn walk(value: serde_json::Value, texts: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) => texts.push(text),
            serde_json::Value::Array(values) => values.into_iter().for_each(|value| walk(value, texts)),
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    texts.push(name);
                    walk(value, texts);
                }
            }
            _ => {}
        }
    }
    let mut texts = Vec::new();
    walk(serde_json::to_value(message).unwrap(), &mut texts);
    texts
}

fn service_name(resource: Option<&Resource>) -> String {
    text(&resource.unwrap().attributes, "service.name").unwrap()
}

/// Returns the value of a string attribute.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text),
        other => panic!("{key} is not a string: {other:?}"),
    }
}

/// Returns the value of an integer attribute.
pub fn integer(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(number) => Some(number),
        other => panic!("{key} is not an integer: {other:?}"),
    }
}

/// Returns the value of an attribute of any type.
pub fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.clone()?.value
}

/// Formats an id in hexadecimal.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
