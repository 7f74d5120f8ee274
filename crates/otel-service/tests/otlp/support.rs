//! Support for the integration tests: OTLP receivers that keep what they receive, and functions that run a
//! scenario in a child process, because providers, subscribers and environment variables are global to a
//! process.

mod certificates;
mod collector;
mod grpc;
mod process;

use std::collections::{BTreeMap, BTreeSet};

use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use telemetry_registry::Finding;

use crate::declared;

pub use certificates::Certificates;
pub use collector::Collector;
pub use grpc::GrpcCollector;
pub use process::{child, gate, is_child, run_prepared, wait_at};

pub const SERVICE: otel_service::Service = otel_service::Service::new("test-service", "9.8.7");

/// Sets up the telemetry with the names of Python's instrumentation, which the tests of requests and records expect.
pub fn init() -> Result<otel_service::Telemetry, otel_service::InitError> {
    otel_service::Telemetry::builder(SERVICE).python_names().init()
}

/// Behaviour of a collector.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behaviour {
    /// Accepts every request.
    Accepts,
    /// Accepts connections and never responds.
    Blackhole,
    /// Responds with 500.
    Fails,
    /// Responds with 500 to the first request of each signal.
    FailsAtFirst,
    /// Sends these raw responses to the first requests of each signal, and accepts later requests.
    Scripted(&'static [&'static str]),
    /// Accepts every request and sends an endless response.
    Endless,
    /// Does not listen.
    Down,
}

#[derive(Debug, Default)]
pub struct Received {
    pub resources: Vec<Resource>,
    pub spans: Vec<Span>,
    pub metrics: Vec<Metric>,
    pub logs: Vec<LogRecord>,
    /// Headers of the accepted requests, including `:path`.
    pub headers: Vec<BTreeMap<String, String>>,
    /// Number of all requests, accepted or not.
    pub requests: usize,
    seen: BTreeMap<String, usize>,
    /// Deviations from the telemetry registry.
    pub findings: BTreeSet<Finding>,
    /// Undecoded bodies with a `content-encoding`.
    pub compressed: Vec<Vec<u8>>,
}

/// Result of a scenario that ran in a child process.
#[derive(Debug)]
pub struct Run {
    pub received: Received,
    pub stdout: String,
}

/// Runs `scenario` in a child process.
///
/// In the test process: starts a collector, runs the test again in a child with `environment`, and
/// returns what the collector and standard output received. In the child: runs `scenario` and returns `None`.
pub fn run(
    test: &str,
    behaviour: Behaviour,
    environment: &[(&str, &str)],
    scenario: impl FnOnce(),
) -> Option<Run> {
    let (collector, stdout) = run_prepared(test, || collecting(behaviour, environment), scenario)?;
    let received = collector.take();
    Some(Run { received, stdout })
}

/// Starts a collector; returns it, and `environment` with its endpoint.
pub fn collecting(behaviour: Behaviour, environment: &[(&str, &str)]) -> (Collector, Vec<(String, String)>) {
    let collector = Collector::start(behaviour);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), collector.url());
    let others = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (collector, [endpoint].into_iter().chain(others).collect())
}

impl Received {
    /// Fails the test on deviations from the telemetry registry.
    fn checked_against_registry(self) -> Self {
        assert_eq!(declared::serious(&self.findings), Vec::<String>::new());
        self
    }

    /// Decodes and keeps a protobuf request; `path` ends with the path of its signal.
    fn keep(&mut self, path: &str, body: &[u8]) {
        match &path[path.find("/v1/").unwrap_or_default()..] {
            "/v1/traces" => {
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                self.findings.extend(declared::REGISTRY.check_traces(&request));
                for group in request.resource_spans {
                    self.resources.extend(group.resource);
                    self.spans
                        .extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
            "/v1/metrics" => {
                let request = ExportMetricsServiceRequest::decode(body).unwrap();
                self.findings.extend(declared::REGISTRY.check_metrics(&request));
                for group in request.resource_metrics {
                    self.resources.extend(group.resource);
                    self.metrics
                        .extend(group.scope_metrics.into_iter().flat_map(|scope| scope.metrics));
                }
            }
            "/v1/logs" => {
                let request = ExportLogsServiceRequest::decode(body).unwrap();
                self.findings.extend(declared::REGISTRY.check_logs(&request));
                for group in request.resource_logs {
                    self.resources.extend(group.resource);
                    self.logs
                        .extend(group.scope_logs.into_iter().flat_map(|scope| scope.log_records));
                }
            }
            other => panic!("unexpected path {other}"),
        }
    }

    /// Returns the headers of the last request whose path, without the query, ends in `path`.
    pub fn headers_of(&self, path: &str) -> &BTreeMap<String, String> {
        let mut latest_first = self.headers.iter().rev();
        latest_first
            .find(|headers| headers[":path"].split('?').next().unwrap().ends_with(path))
            .unwrap_or_else(|| panic!("no request to {path}"))
    }

    pub fn span(&self, name: &str) -> &Span {
        let mut named = self.spans.iter().filter(|span| span.name == name);
        let span = named
            .next()
            .unwrap_or_else(|| panic!("no span {name} in {:?}", self.span_names()));
        assert!(named.next().is_none(), "more than one span {name}");
        span
    }

    pub fn span_names(&self) -> Vec<&str> {
        self.spans.iter().map(|span| span.name.as_str()).collect()
    }

    /// Returns the data points in the most recent export of a counter or gauge.
    pub fn numbers(&self, name: &str) -> Vec<NumberDataPoint> {
        match self.metric(name).data.unwrap() {
            metric::Data::Sum(sum) => sum.data_points,
            metric::Data::Gauge(gauge) => gauge.data_points,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// Returns the data points in the most recent export of a histogram.
    pub fn histogram(&self, name: &str) -> Vec<HistogramDataPoint> {
        match self.metric(name).data.unwrap() {
            metric::Data::Histogram(histogram) => histogram.data_points,
            other => panic!("{name} is {other:?}"),
        }
    }

    pub fn metric(&self, name: &str) -> Metric {
        self.metrics
            .iter()
            .rfind(|metric| metric.name == name)
            .unwrap_or_else(|| panic!("no metric {name}"))
            .clone()
    }

    pub fn log(&self, body: &str) -> &LogRecord {
        self.logs
            .iter()
            .find(|log| body_of(log) == Some(body))
            .unwrap_or_else(|| {
                panic!(
                    "no log {body} in {:?}",
                    self.logs.iter().map(body_of).collect::<Vec<_>>()
                )
            })
    }
}

pub fn body_of(log: &LogRecord) -> Option<&str> {
    match log.body.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Formats attributes as sorted `key=value` pairs, with text quoted to distinguish types.
pub fn shown(attributes: &[KeyValue]) -> Vec<String> {
    let mut shown: Vec<String> = attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            let text = match value {
                Some(Value::StringValue(text)) => format!("{text:?}"),
                Some(Value::IntValue(number)) => number.to_string(),
                Some(Value::DoubleValue(number)) => format!("{number:?}"),
                Some(Value::BoolValue(truth)) => truth.to_string(),
                other => format!("{other:?}"),
            };
            format!("{}={text}", attribute.key)
        })
        .collect();
    shown.sort();
    shown
}

/// Returns the value of an attribute as [`shown`] formats it.
pub fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let prefix = format!("{key}=");
    let mut found: Vec<String> = shown(attributes)
        .into_iter()
        .filter_map(|text| text.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    assert!(found.len() <= 1, "{key} appears more than once");
    found.pop()
}

pub fn number(point: &NumberDataPoint) -> f64 {
    match point.value.unwrap() {
        number_data_point::Value::AsInt(number) => number as f64,
        number_data_point::Value::AsDouble(number) => number,
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses the JSON objects of standard output, one per line; the test runner may have written the start of a
/// line.
pub fn json_lines(stdout: &str) -> Vec<serde_json::Value> {
    stdout
        .lines()
        .filter_map(|line| Some(&line[line.find('{')?..]))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Awaits a response and reads its whole body.
pub async fn read<B, E>(
    response: impl Future<Output = Result<http::Response<B>, E>>,
) -> (http::response::Parts, String)
where
    B: http_body::Body<Error: std::fmt::Debug>,
    E: std::fmt::Debug,
{
    let (head, body) = response.await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head, String::from_utf8(body.to_vec()).unwrap())
}

/// Runs a future on a new runtime with two threads.
pub fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Error type for scenarios.
#[derive(Debug)]
pub enum Problem {
    Rejected,
    Broken(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&otel_service::Failure::message(self))
    }
}

impl otel_service::Failure for Problem {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Rejected => None,
            Self::Broken(_) => Some("problem.broken".into()),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Rejected => "rejected".to_owned(),
            Self::Broken(message) => message.clone(),
        }
    }
}

impl otel_service::DbError for Problem {
    fn status_code(&self) -> Option<String> {
        match self {
            Self::Rejected => Some("23505".to_owned()),
            Self::Broken(_) => Some("57014".to_owned()),
        }
    }
}
