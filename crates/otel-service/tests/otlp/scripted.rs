//! A collector whose response to each request is scripted, to simulate outages. A scenario can query how many
//! requests have arrived.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::{self, Behaviour, Run};

/// Variable with the URL of the collector.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Response to one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// 200.
    Accepts,
    /// No response on an open connection.
    Silence,
    /// An error status.
    Status(u16),
    /// 429 with a `Retry-After` header in seconds.
    Later(u32),
    /// Bytes that are not HTTP.
    Garbage,
    /// 200 with a malformed protobuf body.
    GarbageBody,
    /// A closed connection.
    Hangup,
}

/// Connections and requests that a collector has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub connections: usize,
    pub requests: Vec<Exchange>,
}

/// A request and its response.
#[derive(Debug)]
pub struct Exchange {
    pub path: String,
    pub at: Instant,
    pub reply: Reply,
    body: Vec<u8>,
}

/// Runs `scenario` in a child process like [`support::run`], with a collector that responds to the `n`th
/// request to a path, counted from zero, with the result of `script`. Returns `None` in the child.
pub fn run(
    test: &str,
    script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    environment: &[(&str, &str)],
    scenario: impl FnOnce(),
) -> Option<(Seen, Run)> {
    let (endpoint, seen) = start(script);
    let mut environment = environment.to_vec();
    environment.push((ENDPOINT, &endpoint));
    let run = support::run(test, Behaviour::Down, &environment, scenario)?;
    let seen = std::mem::take(&mut *lock(&seen));
    Some((seen, run))
}

/// Waits, within a scenario, for `count` requests to `path`.
pub fn wait_for(path: &str, count: usize, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    while requests_to(path) < count {
        assert!(
            Instant::now() < deadline,
            "fewer than {count} requests to {path} within {timeout:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn requests_to(path: &str) -> usize {
    let endpoint = std::env::var_os(ENDPOINT).unwrap().into_string().unwrap();
    let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
    let mut count = String::new();
    stream.read_to_string(&mut count).unwrap();
    count.parse().unwrap()
}

fn start(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> (String, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (store, script) = (Arc::clone(&seen), Arc::new(script));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (store, script) = (Arc::clone(&store), Arc::clone(&script));
            thread::spawn(move || serve(&stream.unwrap(), &*script, &store));
        }
    });
    (endpoint, seen)
}

fn serve(stream: &TcpStream, script: &dyn Fn(&str, usize) -> Reply, seen: &Mutex<Seen>) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let mut first = true;
    while let Some((method, path, headers)) = head(&mut reader) {
        if method == "GET" {
            let count = lock(seen).to(&path).count();
            let _ = write!(writer, "{count}");
            return;
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let reply = {
            let mut seen = lock(seen);
            seen.connections += usize::from(std::mem::take(&mut first));
            let reply = script(&path, seen.to(&path).count());
            seen.requests.push(Exchange {
                path,
                at: Instant::now(),
                reply,
                body,
            });
            reply
        };
        let text = match reply {
            Reply::Accepts => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Reply::Status(status) => format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"),
            Reply::Later(seconds) => {
                format!("HTTP/1.1 429 Slowly\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\r\n")
            }
            Reply::Garbage => "\u{1}\u{2} nonsense \u{3}\r\n\r\n".to_owned(),
            Reply::GarbageBody => {
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\u{7f}\u{7f}\u{7f}\u{7f}".to_owned()
            }
            Reply::Hangup => return,
            Reply::Silence => loop {
                thread::park();
            },
        };
        if writer.write_all(text.as_bytes()).is_err() || reply == Reply::Garbage {
            return;
        }
    }
}

/// Reads the method, path and headers; returns `None` if the connection is closed.
fn head(reader: &mut impl BufRead) -> Option<(String, String, BTreeMap<String, String>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => return Some((method, path, headers)),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap()
}

impl Seen {
    /// Returns the requests to `path` in order of arrival.
    pub fn to(&self, path: &str) -> impl Iterator<Item = &Exchange> {
        self.requests.iter().filter(move |request| request.path == path)
    }

    /// Returns the spans of all accepted requests.
    pub fn spans(&self) -> Vec<Span> {
        self.accepted("/v1/traces").flat_map(Exchange::spans).collect()
    }

    /// Returns the log records of all accepted requests.
    pub fn logs(&self) -> Vec<LogRecord> {
        self.accepted("/v1/logs").flat_map(Exchange::logs).collect()
    }

    /// Returns the most recent export of a metric.
    pub fn metric(&self, name: &str) -> Metric {
        let metrics = self
            .accepted("/v1/metrics")
            .flat_map(|request| {
                ExportMetricsServiceRequest::decode(&*request.body)
                    .unwrap()
                    .resource_metrics
            })
            .flat_map(|group| group.scope_metrics)
            .flat_map(|scope| scope.metrics);
        metrics
            .filter(|metric| metric.name == name)
            .last()
            .unwrap_or_else(|| panic!("no metric {name}"))
    }

    fn accepted(&self, path: &str) -> impl Iterator<Item = &Exchange> {
        self.to(path).filter(|request| request.reply == Reply::Accepts)
    }
}

impl Exchange {
    /// Decodes the spans of a request to `/v1/traces`.
    pub fn spans(&self) -> Vec<Span> {
        ExportTraceServiceRequest::decode(&*self.body)
            .unwrap()
            .resource_spans
            .into_iter()
            .flat_map(|group| group.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    /// Decodes the log records of a request to `/v1/logs`.
    pub fn logs(&self) -> Vec<LogRecord> {
        ExportLogsServiceRequest::decode(&*self.body)
            .unwrap()
            .resource_logs
            .into_iter()
            .flat_map(|group| group.scope_logs)
            .flat_map(|scope| scope.log_records)
            .collect()
    }
}
