//! Starts the shop with an OTLP receiver, orders something, and checks what arrives.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
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
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;

/// Maximum number of lines of the shop that concern telemetry.
const MAX_LINES: usize = 25;

#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    metrics: Vec<Metric>,
    resources: Vec<Option<Resource>>,
}

/// Accepts export requests until the test ends.
fn receive(listener: TcpListener, received: Arc<Mutex<Received>>) {
    for stream in listener.incoming() {
        let received = Arc::clone(&received);
        thread::spawn(move || {
            let mut reader = BufReader::new(stream.unwrap());
            while let Some((path, body)) = request(&mut reader) {
                received.lock().unwrap().keep(&path, &body[..]);
                let response = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                reader.get_mut().write_all(response.as_bytes()).unwrap();
            }
        });
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

impl Received {
    fn keep(&mut self, path: &str, body: &[u8]) {
        match path {
            "/v1/traces" => {
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                let groups = request.resource_spans.into_iter();
                let groups = groups
                    .inspect(|group| self.resources.push(group.resource.clone()))
                    .flat_map(|group| group.scope_spans);
                self.spans.extend(groups.flat_map(|group| group.spans));
            }
            "/v1/logs" => {
                let request = ExportLogsServiceRequest::decode(body).unwrap();
                let groups = request.resource_logs.into_iter();
                let groups = groups
                    .inspect(|group| self.resources.push(group.resource.clone()))
                    .flat_map(|group| group.scope_logs);
                self.logs.extend(groups.flat_map(|group| group.log_records));
            }
            "/v1/metrics" => {
                let request = ExportMetricsServiceRequest::decode(body).unwrap();
                let groups = request.resource_metrics.into_iter();
                let groups = groups
                    .inspect(|group| self.resources.push(group.resource.clone()))
                    .flat_map(|group| group.scope_metrics);
                self.metrics.extend(groups.flat_map(|group| group.metrics));
            }
            other => panic!("unexpected path {other}"),
        }
    }

    /// Returns the edges between the spans of a trace, as the names of parent and child.
    fn edges(&self, trace_id: &[u8]) -> Vec<(&str, &str)> {
        let of_trace = || self.spans.iter().filter(|span| span.trace_id == trace_id);
        let names: BTreeMap<&[u8], &str> = of_trace()
            .map(|span| (&span.span_id[..], span.name.as_str()))
            .collect();
        let parent = |span: &Span| names.get(&span.parent_span_id[..]).copied().unwrap_or("");
        let mut edges: Vec<_> = of_trace()
            .map(|span| (parent(span), span.name.as_str()))
            .collect();
        edges.sort_unstable();
        edges
    }

    /// Returns the only log record with the body `text`, and the span that it belongs to.
    fn log(&self, text: &str) -> (&LogRecord, &Span) {
        let has_text = |log: &&LogRecord| {
            let body = log.body.as_ref().and_then(|body| body.value.as_ref());
            body == Some(&Value::StringValue(text.to_owned()))
        };
        let found: Vec<_> = self.logs.iter().filter(has_text).collect();
        let [log] = found[..] else {
            panic!("{text}: {found:?}");
        };
        let is_its = |span: &&Span| (&span.trace_id, &span.span_id) == (&log.trace_id, &log.span_id);
        (log, self.spans.iter().find(is_its).unwrap())
    }

    /// Returns the sum of the measurements of a counter, or the number of measurements of a histogram.
    fn measured(&self, name: &str) -> i64 {
        let metric = self.metrics.iter().rfind(|metric| metric.name == name);
        match metric.and_then(|metric| metric.data.as_ref()) {
            Some(Data::Sum(sum)) => match sum.data_points[0].value {
                Some(number_data_point::Value::AsInt(count)) => count,
                other => panic!("{name}: {other:?}"),
            },
            Some(Data::Histogram(durations)) => {
                let counts = durations.data_points.iter().map(|point| point.count as i64);
                counts.sum()
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

/// Orders an item; returns the status line of the response.
fn order(address: &str, item: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let order = format!("POST /orders/{item} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(order.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.lines().next().unwrap().to_owned()
}

/// Returns an address that nobody listens on.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Waits until the server of tokio-console accepts connections.
fn await_console(address: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "tokio-console is not served");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn all_spans_of_an_order_arrive_in_one_trace_with_logs_and_metrics() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::new(Mutex::new(Received::default()));
    let kept = Arc::clone(&received);
    thread::spawn(move || receive(listener, kept));

    let console = free_address();
    let mut shop = Command::new(env!("CARGO_BIN_EXE_shop"))
        .env_clear()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("TOKIO_CONSOLE_BIND", &console)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(shop.stdout.take().unwrap()).lines();
    let address = loop {
        let line = output.next().unwrap().unwrap();
        if let Some(address) = line.strip_prefix("listening on http://") {
            break address.to_owned();
        }
    };
    await_console(&console);
    assert_eq!(order(&address, "pen"), "HTTP/1.1 200 OK");
    // The table refuses names of 20 characters.
    let refused = order(&address, "a-pen-of-solid-gold-");
    assert_eq!(refused, "HTTP/1.1 500 Internal Server Error");
    let interrupted = Command::new("kill")
        .args(["-s", "INT", &shop.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    let printed: Vec<String> = output.map(Result::unwrap).collect();
    let ended = shop.wait_with_output().unwrap();
    assert!(ended.status.success(), "{printed:#?}");

    let received = received.lock().unwrap();
    let (log, taken) = received.log("order taken");
    assert_eq!(taken.name, "order");
    assert_eq!(text(&log.attributes, "item"), "\"pen\"");
    let edges = received.edges(&taken.trace_id);
    assert_eq!(
        edges,
        [
            ("", "POST /orders/{item}"),
            ("GET", "GET /stock/{item}"),
            ("GET /stock/{item}", "SELECT orders"),
            ("POST /orders/{item}", "order"),
            ("order", "GET"),
            ("order", "save"),
            ("save", "INSERT orders"),
        ]
    );

    // The event of `#[instrument(err)]` reaches the shop's own layer too.
    let alarms = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(alarms, "ALARM: shop\n");
    let failed = |span: &&Span| {
        span.status
            .as_ref()
            .is_some_and(|status| status.code() == StatusCode::Error)
    };
    let mut failed: Vec<&Span> = received.spans.iter().filter(failed).collect();
    failed.sort_by_key(|span| &span.name);
    let [request, save] = failed[..] else {
        panic!("{failed:#?}");
    };
    assert_eq!((&*request.name, &*save.name), ("POST /orders/{item}", "save"));
    let error = received
        .logs
        .iter()
        .find(|log| log.severity_text == "ERROR")
        .unwrap();
    assert_eq!((&error.trace_id, &error.span_id), (&save.trace_id, &save.span_id));
    let message = text(&error.attributes, "exception.message");
    assert!(message.contains("CHECK constraint failed"), "{message}");
    assert_eq!(save.status.as_ref().unwrap().message, message);
    assert_eq!(received.edges(&save.trace_id), edges);

    // sqlx connected and the table was created outside of the requests. Transports and the runtime have no spans.
    let of_orders = [&taken.trace_id, &save.trace_id];
    let others = received
        .spans
        .iter()
        .filter(|span| !of_orders.contains(&&span.trace_id));
    let others: Vec<&str> = others.map(|span| span.name.as_str()).collect();
    assert_eq!(others, ["PRAGMA", "CREATE"]);

    for (metric, count) in [
        ("shop.orders", 1),
        ("http.server.request.duration", 4),
        ("http.client.request.duration", 2),
        ("db.client.operation.duration", 6),
    ] {
        assert_eq!(received.measured(metric), count, "{metric}");
    }
    for resource in &received.resources {
        let resource = resource.as_ref().unwrap();
        assert_eq!(text(&resource.attributes, "service.name"), "shop");
    }
}

/// Returns the lines of `source` that concern telemetry: those with one of `words`, with all lines of their statement
/// or block.
fn telemetry_lines<'a>(source: &'a str, words: &[&str]) -> Vec<&'a str> {
    let mut lines = Vec::new();
    // Number of brackets that the previous lines have opened; `None` if they do not concern telemetry.
    let mut open = None;
    for line in source.lines().filter(|line| !line.trim().starts_with("//")) {
        let continues = open.is_some_and(|open| open > 0 || line.trim().starts_with('.'));
        open = (continues || words.iter().any(|word| line.contains(word))).then(|| {
            lines.push(line);
            let count = |brackets: [char; 3]| line.matches(brackets).count() as i32;
            open.unwrap_or(0) + count(['(', '[', '{']) - count([')', ']', '}'])
        });
    }
    lines
}

#[test]
fn few_lines_of_the_shop_concern_telemetry() {
    let words = [
        "otel",
        "tracing",
        "elemetry",
        "instrument",
        "HttpLayer",
        "OUTGOING",
        "console",
        "Alarm",
        "ORDERS",
        "info!",
    ];
    let lines = telemetry_lines(include_str!("../src/main.rs"), &words);
    assert!(lines.len() > 20, "the words do not match: {lines:#?}");
    assert!(lines.len() <= MAX_LINES, "{} lines: {lines:#?}", lines.len());
    let example = "use a;\nlet telemetry = a\n    .b(\n        c,\n    )\n    .d();\nf();\n// telemetry\n";
    assert_eq!(telemetry_lines(example, &words).len(), 5);
}
