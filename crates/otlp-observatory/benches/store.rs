//! What the store costs: microseconds for each span it takes in, memory as the system sees it against what is counted, and
//! how long the pages' questions take over a full store, with telemetry coming in beside them and without.
//!
//! `cargo bench -p otlp-observatory --bench store` prints all of it. The store is compiled in, since it is no public interface.

#[expect(dead_code, reason = "only what the store takes is needed of it")]
#[path = "../src/export.rs"]
mod export;
#[expect(dead_code, unused_imports, reason = "only filled and asked, not shown")]
#[path = "../src/store/mod.rs"]
mod store;

use std::{
    fs,
    hint::black_box,
    io::{self, StdoutLock, Write, stdout},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        AggregationTemporality, Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, metric,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, span::SpanKind},
};

use export::Export;
use store::{Store, Text, TraceSearch};

const LIMIT: usize = 256 << 20;
const SPANS_OF_TRACE: u64 = 9;
const TRACES_OF_BATCH: u64 = 57;
const WINDOW: u64 = 3_600_000_000_000;

fn main() -> io::Result<()> {
    let measure = match std::env::args().nth(1).as_deref() {
        // Each in a process of its own: memory that was given back is there to be taken again.
        Some("--bench") => {
            return ["usual", "unique", "records", "points"]
                .into_iter()
                .try_for_each(start);
        }
        Some("usual") => usual_spans,
        Some("unique") => unique_spans,
        Some("records") => log_records,
        Some("points") => points,
        // Compiled and started as a test.
        _ => return Ok(()),
    };
    measure(&mut stdout().lock())
}

/// Measures in a process of its own.
fn start(what: &str) -> io::Result<()> {
    Command::new(std::env::current_exe()?)
        .arg(what)
        .status()
        .map(drop)
}

fn usual_spans(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Arc::new(Store::new(LIMIT));
    let mut next = 1;
    fill(&store, &mut next, 1_500_000, usual);
    let taken = fill(&store, &mut next, 500_000, usual);
    writeln!(
        out,
        "usual spans: {:.2} µs of a processor for each",
        taken.as_secs_f64() * 1e6 / 5e5
    )?;
    memory(out, &store, before)?;
    questions(out, &store)?;

    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (store, stop) = (store.clone(), stop.clone());
        thread::spawn(move || steady(&store, next, &stop))
    };
    writeln!(out, "the same with 20,000 spans a second coming in:")?;
    questions(out, &store)?;
    stop.store(true, Ordering::Relaxed);
    if let Ok((rate, busy, longest)) = sender.join() {
        let (busy, longest) = (busy * 100.0, longest.as_secs_f64() * 1e3);
        writeln!(
            out,
            "  taking in {rate:.0} a second: {busy:.1} % of a processor, {longest:.1} ms for the slowest batch"
        )?;
    }
    Ok(())
}

fn unique_spans(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Store::new(LIMIT);
    let taken = fill(&store, &mut 1, 1_000_000, unique);
    writeln!(
        out,
        "traces of one small span with a name of its own: {:.2} µs of a processor for each",
        taken.as_secs_f64()
    )?;
    memory(out, &store, before)?;
    questions(out, &store)
}

fn log_records(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Store::new(LIMIT);
    let mut taken = Duration::ZERO;
    for batch in 0..1_000 {
        let records = (0..512).map(|place| record(batch * 512 + place)).collect();
        taken += taken_in(&store, log_request(records));
    }
    writeln!(
        out,
        "log records: {:.2} µs of a processor for each",
        taken.as_secs_f64() * 1e6 / 512e3
    )?;
    memory(out, &store, before)
}

fn points(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Store::new(LIMIT);
    let mut taken = Duration::ZERO;
    for round in 1..=1_000 {
        taken += taken_in(
            &store,
            metric_request((0..1_000).map(|series| point(series, round)).collect()),
        );
    }
    writeln!(
        out,
        "points of histograms: {:.2} µs of a processor for each",
        taken.as_secs_f64()
    )?;
    memory(out, &store, before)
}

/// Puts `request` in and gives the time of the store.
fn taken_in(store: &Store, request: Export) -> Duration {
    let start = processor_time();
    store.insert(request);
    processor_time() - start
}

/// Puts in about `spans` and gives the time of the store.
fn fill(store: &Store, next: &mut u64, spans: u64, make: fn(u64) -> Vec<Span>) -> Duration {
    let mut taken = Duration::ZERO;
    let mut put = 0;
    while put < spans {
        let batch = batch(next, make);
        put += batch.1;
        taken += taken_in(store, batch.0);
    }
    taken
}

/// Puts in 20,000 spans a second until told to stop: how many it were, the part of a processor, and the slowest batch.
fn steady(store: &Store, mut next: u64, stop: &AtomicBool) -> (f64, f64, Duration) {
    let begun = Instant::now();
    let (mut busy, mut longest, mut put) = (Duration::ZERO, Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let due = begun + Duration::from_secs_f64(put as f64 / 20_000.0);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let batch = batch(&mut next, usual);
        put += batch.1;
        let (start, worked) = (Instant::now(), processor_time());
        store.insert(batch.0);
        busy += processor_time() - worked;
        longest = longest.max(start.elapsed());
    }
    let seconds = begun.elapsed().as_secs_f64();
    (put as f64 / seconds, busy.as_secs_f64() / seconds, longest)
}

fn memory(out: &mut impl Write, store: &Store, before: usize) -> io::Result<()> {
    let fill = store.fill();
    let counted = fill.traces_bytes + fill.logs_bytes + fill.metrics_bytes;
    let grown = resident()?.saturating_sub(before);
    writeln!(
        out,
        "  {} spans, {} records, {} points kept: {:.1} MiB counted, {:.1} MiB more resident",
        fill.kept.spans,
        fill.kept.logs,
        fill.kept.points,
        mib(counted),
        mib(grown),
    )
}

fn questions(out: &mut impl Write, store: &Store) -> io::Result<()> {
    let all = TraceSearch {
        limit: 50,
        ..TraceSearch::default()
    };
    let nowhere = TraceSearch {
        text: Some(Text::new("occurs nowhere")),
        ..all.clone()
    };
    let other = TraceSearch {
        service: Some("nobody".to_owned()),
        ..all.clone()
    };
    let mut ask = |question: &str, answer: &dyn Fn()| {
        let mut times: Vec<_> = (0..15)
            .map(|_| {
                let (start, worked) = (Instant::now(), processor_time());
                answer();
                let worked = (processor_time() - worked).as_secs_f64() * 1e3;
                (worked, start.elapsed().as_secs_f64() * 1e3)
            })
            .collect();
        times.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let longest = times.iter().map(|(_, waited)| *waited).fold(0.0, f64::max);
        writeln!(
            out,
            "  {question}: {:.1} ms of a processor; {longest:.1} ms at most until it was there",
            times[7].0
        )
    };
    ask("overview", &|| {
        black_box(store.overview(WINDOW, store::now()));
    })?;
    ask("map", &|| {
        black_box(store.map(WINDOW, store::now()));
    })?;
    ask("newest 50 traces", &|| {
        black_box(store.search_traces(&all));
    })?;
    ask("traces of a service that is not there", &|| {
        black_box(store.search_traces(&other));
    })?;
    ask("traces with a text that is not there", &|| {
        black_box(store.search_traces(&nowhere));
    })
}

/// A request of an exporter, and how many spans it has.
fn batch(next: &mut u64, make: fn(u64) -> Vec<Span>) -> (Export, u64) {
    let traces = *next..*next + TRACES_OF_BATCH;
    *next = traces.end;
    let spans: Vec<_> = traces.flat_map(make).collect();
    let count = spans.len() as u64;
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "app"), text("service.version", "1.0")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "bench".to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    (Export::Traces(request), count)
}

/// A request with its statements, as a service with automatic instrumentation makes it.
fn usual(trace: u64) -> Vec<Span> {
    let request = span(
        trace,
        1,
        0,
        SpanKind::Server,
        format!("GET /api/articles/{}", trace % 7),
        vec![
            text("http.request.method", "GET"),
            text("http.route", "/api/articles/{slug}"),
            text("url.path", &format!("/api/articles/an-article-about-{trace}")),
            text("url.scheme", "http"),
            int("http.response.status_code", 200),
            text("server.address", "localhost"),
            int("server.port", 8000),
            text("client.address", "127.0.0.1"),
            text(
                "user_agent.original",
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
            ),
            text("network.protocol.version", "1.1"),
        ],
    );
    let statements = (2..=SPANS_OF_TRACE).map(|id| {
        span(
            trace,
            id,
            1,
            SpanKind::Client,
            "SELECT articles".to_owned(),
            vec![
                text("db.system.name", "postgresql"),
                text("db.namespace", "pressroom"),
                text("db.operation.name", "SELECT"),
                text("db.collection.name", "articles"),
                text("db.query.summary", "SELECT articles"),
                text(
                    "db.query.text",
                    "SELECT a.id, a.slug, a.title, a.description FROM articles a WHERE a.slug = $1",
                ),
                text("server.address", "localhost"),
                int("server.port", 5432),
                int("db.response.returned_rows", 1),
            ],
        )
    });
    [request].into_iter().chain(statements).collect()
}

/// A trace of one span that shares nothing with others.
fn unique(trace: u64) -> Vec<Span> {
    vec![span(
        trace,
        1,
        0,
        SpanKind::Server,
        format!("GET /{trace}"),
        Vec::new(),
    )]
}

fn span(trace: u64, id: u64, parent: u64, kind: SpanKind, name: String, attributes: Vec<KeyValue>) -> Span {
    let now = store::now();
    Span {
        trace_id: (u128::from(trace) << 64 | 1).to_be_bytes().to_vec(),
        span_id: (trace << 8 | id).to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 {
            Vec::new()
        } else {
            (trace << 8 | parent).to_be_bytes().to_vec()
        },
        name,
        kind: kind as i32,
        start_time_unix_nano: now - 1_000_000 - trace % 1_000,
        end_time_unix_nano: now,
        attributes,
        ..Span::default()
    }
}

/// A record as one of a hundred requests would write it.
fn record(number: u64) -> LogRecord {
    let time = store::now();
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: text("", &format!("article {number} created")).value,
        attributes: vec![
            text("code.file.path", "crates/pressroom/src/articles.rs"),
            int("code.line.number", 120),
            text("article.slug", &format!("an-article-about-{number}")),
        ],
        trace_id: (u128::from(number / 3) << 64 | 1).to_be_bytes().to_vec(),
        span_id: (number | 1 << 40).to_be_bytes().to_vec(),
        ..LogRecord::default()
    }
}

fn log_request(log_records: Vec<LogRecord>) -> Export {
    Export::Logs(ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    })
}

/// A point of a cumulative histogram with the bounds that the conventions advise.
fn point(series: u64, round: u64) -> HistogramDataPoint {
    let bounds = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    HistogramDataPoint {
        attributes: vec![
            text("http.route", &format!("/api/{series}")),
            int("http.response.status_code", 200),
        ],
        start_time_unix_nano: 1,
        time_unix_nano: round * 1_000_000_000,
        count: round * 15,
        sum: Some(round as f64),
        bucket_counts: (0..15).map(|bucket| round * (15 - bucket) / 8).collect(),
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    }
}

fn metric_request(data_points: Vec<HistogramDataPoint>) -> Export {
    let histogram = Histogram {
        data_points,
        aggregation_temporality: AggregationTemporality::Cumulative as i32,
    };
    Export::Metrics(ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric {
                    name: "http.server.request.duration".to_owned(),
                    data: Some(metric::Data::Histogram(histogram)),
                    ..Metric::default()
                }],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// How long this thread has run on a processor: other processes do not count.
fn processor_time() -> Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = schedule.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// What the process has in memory (`VmRSS`), in bytes.
fn resident() -> io::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    Ok(kibibytes.unwrap_or(0) * 1024)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
