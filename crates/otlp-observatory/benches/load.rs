//! Load generator of `bench/observatory`: sends spans and log records to an observatory at a constant rate,
//! and requests the JSON of its pages at the same time. It measures a whole process under load instead of
//! single functions.
//!
//! ```text
//! load <OTLP/HTTP URL> <pages URL> <spans per second> <seconds> [<connections>]
//! ```
//!
//! With `-` instead of the pages' URL, no pages are requested, and only spans are sent. Prints a line about the sent
//! telemetry and a line for each page.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message as _;
use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use tokio::task::JoinSet;

/// Number of spans per request, the default of the SDKs.
const BATCH: u64 = 512;

/// Number of spans per trace.
const TRACE: u64 = 8;

/// Interval between requests of a page.
const REQUEST_INTERVAL: Duration = Duration::from_millis(100);

/// Requested pages. They include searches with few matches, which take longest.
const PAGES: [(&str, &str); 7] = [
    ("overview", ""),
    ("traces", "traces"),
    ("traces by attribute", "traces?attribute=enduser.id%3D4711"),
    ("traces by absent text", "traces?text=absent-text"),
    ("logs", "logs"),
    ("logs by text", "logs?text=article-4711"),
    ("map", "map"),
];

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (words, connections) = match words.as_slice() {
        [words @ .., connections] if words.len() == 4 => (words, connections.parse()?),
        words => (words, 1),
    };
    let &[otlp, pages, rate, seconds] = words else {
        // `cargo bench` starts every benchmark without arguments; this one needs a server.
        return if words.is_empty() {
            Ok(())
        } else {
            Err("usage: load <OTLP/HTTP URL> <pages URL> <spans per second> <seconds> [<connections>]".into())
        };
    };
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "another cryptography provider is installed")?;
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()?;
        let mut readers = JoinSet::new();
        let has_pages = pages != "-";
        for (name, target) in PAGES.into_iter().filter(|_| has_pages) {
            let (client, url) = (client.clone(), format!("{pages}/{target}"));
            readers.spawn(async move { measure(&client, name, &url, end).await });
        }
        send(&client, otlp, rate.parse()?, end, connections, has_pages).await?;
        while let Some(line) = readers.join_next().await {
            print(&line??);
        }
        Ok(())
    })
}

/// Sends `rate` spans per second until `end`, one request at a time on each of some connections.
///
/// Delays do not cause larger batches, so the rate may be lower. The actual rate is part of the result.
async fn send(
    client: &Client,
    url: &str,
    rate: u64,
    end: Instant,
    connections: u64,
    with_logs: bool,
) -> Result<(), Error> {
    let start = Instant::now();
    let mut senders = JoinSet::new();
    for connection in 0..connections {
        let (client, url) = (client.clone(), url.to_owned());
        senders.spawn(async move {
            let mut sent = Sent::default();
            let mut batch = connection;
            while Instant::now() < end {
                let due = Duration::from_secs_f64((batch * BATCH) as f64 / rate as f64);
                tokio::time::sleep_until((start + due).into()).await;
                let (spans, logs) = requests(batch);
                sent.post(&client, &format!("{url}/v1/traces"), spans.encode_to_vec(), BATCH)
                    .await?;
                if with_logs {
                    sent.post(&client, &format!("{url}/v1/logs"), logs.encode_to_vec(), 0)
                        .await?;
                }
                batch += connections;
            }
            Ok::<_, Error>(sent)
        });
    }
    let mut sent = Sent::default();
    while let Some(sender) = senders.join_next().await {
        let sender = sender??;
        sent.requests += sender.requests;
        sent.spans += sender.spans;
        sent.rejected += sender.rejected;
    }
    let seconds = start.elapsed().as_secs_f64();
    print(&format!(
        "{:<24} {:.0} per second, {} accepted; {} of {} requests rejected with 429",
        "spans",
        sent.spans as f64 / seconds,
        sent.spans,
        sent.rejected,
        sent.requests
    ));
    Ok(())
}

#[derive(Default)]
struct Sent {
    requests: u64,
    spans: u64,
    rejected: u64,
}

impl Sent {
    async fn post(&mut self, client: &Client, url: &str, body: Vec<u8>, spans: u64) -> Result<(), Error> {
        let request = client.post(url).header(CONTENT_TYPE, "application/x-protobuf");
        let response = request.body(body).send().await?;
        self.requests += 1;
        match response.status() {
            StatusCode::OK => self.spans += spans,
            StatusCode::TOO_MANY_REQUESTS => self.rejected += 1,
            other => return Err(format!("{url} returned {other}").into()),
        }
        response.bytes().await?;
        Ok(())
    }
}

/// Requests a page until `end`; returns a line with the latencies.
async fn measure(client: &Client, name: &str, url: &str, end: Instant) -> Result<String, Error> {
    let mut interval = tokio::time::interval(REQUEST_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut latencies = Vec::new();
    let mut bytes = 0;
    while Instant::now() < end {
        interval.tick().await;
        let start = Instant::now();
        let response = client.get(url).send().await?;
        if response.status() != StatusCode::OK {
            return Err(format!("{url} returned {}", response.status()).into());
        }
        bytes = response.bytes().await?.len();
        latencies.push(start.elapsed());
    }
    latencies.sort_unstable();
    let quantile = |share: f64| {
        let index = ((latencies.len() - 1) as f64 * share).ceil() as usize;
        latencies[index].as_secs_f64() * 1e3
    };
    Ok(format!(
        "{name:<24} p50 {:6.1} ms, p99 {:6.1} ms, maximum {:6.1} ms of {} requests; last response {bytes} bytes",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        latencies.len()
    ))
}

#[expect(clippy::print_stdout, reason = "this program prints its results")]
fn print(line: &str) {
    println!("{line}");
}

// Telemetry

/// Returns a batch of complete traces of an articles service and its worker, with two log records per trace.
fn requests(batch: u64) -> (ExportTraceServiceRequest, ExportLogsServiceRequest) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let (mut app, mut worker, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for trace in 0..BATCH / TRACE {
        let trace = Trace {
            number: batch * (BATCH / TRACE) + trace,
            start: now - 20_000_000,
        };
        app.extend((0..5).map(|index| trace.span(index)));
        worker.extend((5..TRACE).map(|index| trace.span(index)));
        records.extend([
            trace.record(0, "article created"),
            trace.record(4, "task accepted"),
        ]);
    }
    let spans = |service, spans| ResourceSpans {
        resource: Some(resource(service)),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope()),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    let logs = ResourceLogs {
        resource: Some(resource("shop-app")),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: records,
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    (
        ExportTraceServiceRequest {
            resource_spans: vec![spans("shop-app", app), spans("shop-worker", worker)],
        },
        ExportLogsServiceRequest {
            resource_logs: vec![logs],
        },
    )
}

struct Trace {
    number: u64,
    /// Nanoseconds since the Unix epoch.
    start: u64,
}

impl Trace {
    fn id(&self) -> Vec<u8> {
        let number = u128::from(self.number) + 1;
        number
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .to_be_bytes()
            .to_vec()
    }

    fn span_id(&self, index: u64) -> Vec<u8> {
        let number = self.number * TRACE + index + 1;
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec()
    }

    /// Returns the span `index` of the trace: a request with three statements and a message, or a task with a
    /// statement and a call.
    fn span(&self, index: u64) -> Span {
        let (name, kind, parent, duration) = [
            ("POST /api/articles/", 2, None, 12_000_000),
            ("SELECT users", 3, Some(0), 900_000),
            ("INSERT articles", 3, Some(0), 1_400_000),
            ("INSERT outbox", 3, Some(0), 700_000),
            ("publish celery", 4, Some(0), 400_000),
            ("process celery", 5, Some(4), 6_000_000),
            ("SELECT favorites", 3, Some(5), 1_100_000),
            ("POST", 3, Some(5), 3_000_000),
        ][index as usize];
        let failed = self.number.is_multiple_of(100) && index == 7;
        Span {
            trace_id: self.id(),
            span_id: self.span_id(index),
            parent_span_id: parent.map(|parent| self.span_id(parent)).unwrap_or_default(),
            name: name.to_owned(),
            kind,
            start_time_unix_nano: self.start + index * 500_000,
            end_time_unix_nano: self.start + index * 500_000 + duration + self.number % 1_000 * 1_000,
            attributes: self.attributes(index),
            status: failed.then(|| Status {
                message: "the receiver returned 500".to_owned(),
                code: 2,
            }),
            ..Span::default()
        }
    }

    fn attributes(&self, index: u64) -> Vec<KeyValue> {
        let user = (self.number % 10_000).to_string();
        let mut attributes = vec![
            text("enduser.id", &user),
            text("thread.name", "tokio-rt-worker"),
            number("thread.id", 2),
            text("server.address", "db.example.com"),
            number("server.port", 5432),
        ];
        attributes.extend(match index {
            0 => vec![
                text("http.request.method", "POST"),
                text("http.route", "/api/articles/"),
                text("url.path", "/api/articles/"),
                number("http.response.status_code", 201),
                text(
                    "user_agent.original",
                    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
                ),
            ],
            4 | 5 => vec![
                text("messaging.system", "celery"),
                text("messaging.destination.name", "celery"),
                text(
                    "messaging.operation.type",
                    if index == 4 { "send" } else { "process" },
                ),
                text("messaging.message.id", &format!("{:032x}", self.number)),
                text("celery.task_name", "app.jobs.tasks.send_article_notification"),
            ],
            7 => vec![
                text("http.request.method", "POST"),
                text("url.full", "https://hooks.example.com/articles"),
                number("http.response.status_code", 200),
            ],
            _ => vec![
                text("db.system.name", "postgresql"),
                text("db.namespace", "shop"),
                text("db.operation.name", "SELECT"),
                text(
                    "db.query.text",
                    "SELECT id, email, name, bio, image FROM users WHERE id = $1 AND deleted_at IS NULL",
                ),
                number("db.response.returned_rows", 1),
            ],
        });
        attributes
    }

    fn record(&self, span: u64, body: &str) -> LogRecord {
        LogRecord {
            time_unix_nano: self.start,
            severity_number: 9,
            severity_text: "INFO".to_owned(),
            body: Some(any(any_value::Value::StringValue(body.to_owned()))),
            attributes: vec![
                text("article.slug", &format!("article-{}", self.number % 100_000)),
                text("code.file.path", "crates/shop/src/articles/service.rs"),
                number("code.line.number", 142),
            ],
            trace_id: self.id(),
            span_id: self.span_id(span),
            ..LogRecord::default()
        }
    }
}

fn resource(service: &str) -> Resource {
    Resource {
        attributes: vec![
            text("service.name", service),
            text("service.version", "1.4.2"),
            text("deployment.environment.name", "development"),
            text("telemetry.sdk.language", "rust"),
        ],
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "shop".to_owned(),
        ..InstrumentationScope::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

fn any(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}
