//! Starts the shop with an OTLP receiver, orders something, and checks what arrives.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// Maximum number of lines of the shop that concern telemetry.
const MAX_LINES: usize = 25;

#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    metrics: Vec<String>,
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
                let groups = request
                    .resource_spans
                    .into_iter()
                    .flat_map(|group| group.scope_spans);
                self.spans.extend(groups.flat_map(|group| group.spans));
            }
            "/v1/logs" => {
                let request = ExportLogsServiceRequest::decode(body).unwrap();
                let groups = request
                    .resource_logs
                    .into_iter()
                    .flat_map(|group| group.scope_logs);
                self.logs.extend(groups.flat_map(|group| group.log_records));
            }
            "/v1/metrics" => {
                let request = ExportMetricsServiceRequest::decode(body).unwrap();
                let groups = request
                    .resource_metrics
                    .into_iter()
                    .flat_map(|group| group.scope_metrics);
                self.metrics
                    .extend(groups.flat_map(|group| group.metrics).map(|metric| metric.name));
            }
            other => panic!("unexpected path {other}"),
        }
    }
}

#[test]
fn all_spans_of_an_order_arrive_in_one_trace_with_logs_and_metrics() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::new(Mutex::new(Received::default()));
    let kept = Arc::clone(&received);
    thread::spawn(move || receive(listener, kept));

    let mut shop = Command::new(env!("CARGO_BIN_EXE_shop"))
        .env_clear()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(shop.stdout.take().unwrap()).lines();
    let address = loop {
        let line = output.next().unwrap().unwrap();
        if let Some(address) = line.strip_prefix("listening on http://") {
            break address.to_owned();
        }
    };
    let mut stream = TcpStream::connect(&address).unwrap();
    let order = format!("POST /orders/pen HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(order.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let interrupted = Command::new("kill")
        .args(["-s", "INT", &shop.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    let printed: Vec<String> = output.map(Result::unwrap).collect();
    assert!(shop.wait().unwrap().success(), "{printed:#?}");

    let received = received.lock().unwrap();
    let server = received
        .spans
        .iter()
        .find(|span| span.name == "POST /orders/{item}")
        .unwrap();
    let of_trace: Vec<&Span> = received
        .spans
        .iter()
        .filter(|span| span.trace_id == server.trace_id)
        .collect();
    let names: BTreeMap<&[u8], &str> = of_trace
        .iter()
        .map(|span| (&span.span_id[..], span.name.as_str()))
        .collect();
    let mut edges: Vec<(&str, &str)> = of_trace
        .iter()
        .map(|span| {
            (
                *names.get(&span.parent_span_id[..]).unwrap_or(&""),
                span.name.as_str(),
            )
        })
        .collect();
    edges.sort_unstable();
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
    // sqlx connected and the table was created outside of the request. Transports and the runtime have no spans.
    let others: Vec<&str> = received
        .spans
        .iter()
        .filter(|span| span.trace_id != server.trace_id)
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(others, ["PRAGMA", "CREATE"]);

    let log = received.logs.iter().find(|log| {
        let body = log.body.as_ref().and_then(|body| body.value.clone());
        body == Some(Value::StringValue("order taken".to_owned()))
    });
    let log = log.unwrap();
    assert_eq!(names[&log.span_id[..]], "order");
    assert!(
        log.attributes.iter().any(|attribute| attribute.key == "item"),
        "{log:?}"
    );
    for metric in [
        "shop.orders",
        "http.server.request.duration",
        "http.client.request.duration",
        "db.client.operation.duration",
    ] {
        assert!(
            received.metrics.iter().any(|name| name == metric),
            "{metric}: {:?}",
            received.metrics
        );
    }
}

#[test]
fn few_lines_of_the_shop_concern_telemetry() {
    let words = [
        "otel",
        "tracing",
        "elemetry",
        "instrument",
        "HttpLayer",
        "HttpClientLayer",
        "console",
        "Alarm",
    ];
    let more_words = [
        "ORDERS",
        "OUTGOING",
        "info!",
        "metadata",
        "sqlx_system",
        "init()",
        "ALARM",
    ];
    let source = include_str!("../src/main.rs");
    let is_code = |line: &&str| !line.trim().starts_with("//");
    let lines: Vec<&str> = source
        .lines()
        .filter(is_code)
        .filter(|line| words.iter().chain(&more_words).any(|word| line.contains(word)))
        .collect();
    assert!(lines.len() > 15, "the words do not match: {lines:#?}");
    assert!(lines.len() <= MAX_LINES, "{} lines: {lines:#?}", lines.len());
}
