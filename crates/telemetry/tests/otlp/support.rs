//! What the integration tests share: an OTLP receiver that keeps what it gets, and a way to run a test's scenario in a
//! process of its own, because providers, subscribers and environment variables belong to the whole process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

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

const CHILD: &str = "TELEMETRY_TEST_CHILD";

pub const SERVICE: telemetry::Service = telemetry::Service::new("test-service", "9.8.7");

/// How a collector behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behaviour {
    Takes,
    /// Accepts connections and never answers.
    Blackhole,
    /// Answers 500.
    Fails,
    /// Answers 500 to the first request of each signal.
    FailsAtFirst,
    /// Nobody listens.
    Down,
}

#[derive(Debug, Default)]
pub struct Received {
    pub resources: Vec<Resource>,
    pub spans: Vec<Span>,
    pub metrics: Vec<Metric>,
    pub logs: Vec<LogRecord>,
    pub headers: Vec<BTreeMap<String, String>>,
    pub requests: usize,
    paths: BTreeSet<String>,
    /// Bodies with a `content-encoding`, as they came.
    pub compressed: Vec<Vec<u8>>,
}

/// The outcome of a scenario that ran in its own process.
#[derive(Debug)]
pub struct Run {
    pub received: Received,
    pub stdout: String,
}

/// In the test's own process: starts a collector, runs the test again in a child with `environment` and returns what the
/// collector and standard output got. In the child: runs `scenario` and returns `None`.
pub fn run(
    test: &str,
    behaviour: Behaviour,
    environment: &[(&str, &str)],
    scenario: impl FnOnce(),
) -> Option<Run> {
    if std::env::var_os(CHILD).is_some() {
        scenario();
        return None;
    }
    let (address, received) = collector(behaviour);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env_clear()
        .env(CHILD, "1")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{test}: the scenario hangs");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let stdout = reader.join().unwrap().unwrap();
    assert!(status.success(), "{test}: the scenario failed\n{stdout}");
    assert!(stdout.contains("1 passed"), "{test} did not run\n{stdout}");
    let received = std::mem::take(&mut *received.lock().unwrap());
    Some(Run { received, stdout })
}

fn collector(behaviour: Behaviour) -> (SocketAddr, Arc<Mutex<Received>>) {
    let received = Arc::new(Mutex::new(Received::default()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    if behaviour != Behaviour::Down {
        let store = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let store = Arc::clone(&store);
                thread::spawn(move || serve(&stream.unwrap(), behaviour, &store));
            }
        });
    }
    (address, received)
}

fn serve(stream: &TcpStream, behaviour: Behaviour, store: &Mutex<Received>) {
    let mut reader = BufReader::new(stream);
    while let Some((path, headers)) = head(&mut reader) {
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let first = store.lock().unwrap().paths.insert(path.clone());
        let fails = match behaviour {
            Behaviour::Fails => true,
            Behaviour::FailsAtFirst => first,
            _ => false,
        };
        let answer: &[u8] = if fails {
            b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
        };
        let mut received = store.lock().unwrap();
        received.requests += 1;
        if !fails && behaviour != Behaviour::Blackhole {
            received.headers.push(headers.clone());
            if headers.contains_key("content-encoding") {
                received.compressed.push(body);
            } else {
                received.keep(&path, &body);
            }
        }
        drop(received);
        if behaviour == Behaviour::Blackhole {
            loop {
                thread::park();
            }
        }
        let mut writer = stream;
        if writer.write_all(answer).is_err() {
            return;
        }
    }
}

/// The request line's path and the headers; `None` when the connection is closed.
fn head(reader: &mut impl BufRead) -> Option<(String, BTreeMap<String, String>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let path = line.split_whitespace().nth(1).unwrap().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => return Some((path, headers)),
        }
    }
}

impl Received {
    fn keep(&mut self, path: &str, body: &[u8]) {
        match path {
            "/v1/traces" => {
                for group in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
                    self.resources.extend(group.resource);
                    self.spans
                        .extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
            "/v1/metrics" => {
                for group in ExportMetricsServiceRequest::decode(body)
                    .unwrap()
                    .resource_metrics
                {
                    self.resources.extend(group.resource);
                    self.metrics
                        .extend(group.scope_metrics.into_iter().flat_map(|scope| scope.metrics));
                }
            }
            "/v1/logs" => {
                for group in ExportLogsServiceRequest::decode(body).unwrap().resource_logs {
                    self.resources.extend(group.resource);
                    self.logs
                        .extend(group.scope_logs.into_iter().flat_map(|scope| scope.log_records));
                }
            }
            other => panic!("unexpected path {other}"),
        }
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

    /// The last state of a counter's or gauge's points.
    pub fn numbers(&self, name: &str) -> Vec<NumberDataPoint> {
        match self.metric(name).data.unwrap() {
            metric::Data::Sum(sum) => sum.data_points,
            metric::Data::Gauge(gauge) => gauge.data_points,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The last state of a histogram's points.
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

/// Attributes as `key=value`, text quoted, sorted: types show.
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

/// One attribute's value as [`shown`] shows it.
pub fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let prefix = format!("{key}=");
    let mut found: Vec<String> = shown(attributes)
        .into_iter()
        .filter_map(|text| text.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    assert!(found.len() <= 1, "{key} is there more than once");
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

/// The JSON objects of standard output, one a line; the test runner may have begun the line.
pub fn json_lines(stdout: &str) -> Vec<serde_json::Value> {
    stdout
        .lines()
        .filter_map(|line| Some(&line[line.find('{')?..]))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// An async runtime for a scenario.
pub fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// An error of a scenario.
#[derive(Debug)]
pub enum Problem {
    Refused,
    Broken(String),
}

impl telemetry::Failure for Problem {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Refused => None,
            Self::Broken(_) => Some("problem.broken".into()),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Refused => "refused".to_owned(),
            Self::Broken(message) => message.clone(),
        }
    }
}

impl telemetry::DbError for Problem {
    fn status_code(&self) -> Option<String> {
        match self {
            Self::Refused => Some("23505".to_owned()),
            Self::Broken(_) => Some("57014".to_owned()),
        }
    }
}
