//! Measures the store: the processor time per inserted item, the resident memory compared with the counted
//! memory, and the latency of queries on a full store with and without concurrent inserts.
//!
//! `cargo bench -p otlp-observatory --bench store` prints the results. The source of the store is included as
//! a module, because the store is private.

#[expect(dead_code, reason = "the store does not use all of the module")]
#[path = "../src/export.rs"]
mod export;
#[expect(dead_code, unused_imports, reason = "only the pages use all of the store")]
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
const SPANS_PER_TRACE: u64 = 9;
const TRACES_PER_BATCH: u64 = 57;
const WINDOW: u64 = 3_600_000_000_000;

fn main() -> io::Result<()> {
    let measure = match std::env::args().nth(1).as_deref() {
        // Each measurement runs in a new process, because a process would reuse freed memory.
        Some("--bench") => {
            return ["typical", "unique", "records", "points"]
                .into_iter()
                .try_for_each(start);
        }
        Some("typical") => typical_spans,
        Some("unique") => unique_spans,
        Some("records") => log_records,
        Some("points") => points,
        // `cargo test` starts benchmarks without `--bench`.
        _ => return Ok(()),
    };
    measure(&mut stdout().lock())
}

/// Runs a measurement in a new process.
fn start(name: &str) -> io::Result<()> {
    Command::new(std::env::current_exe()?)
        .arg(name)
        .status()
        .map(drop)
}

fn typical_spans(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Arc::new(Store::new(LIMIT));
    let mut next = 1;
    insert_spans(&store, &mut next, 1_500_000, typical);
    let taken = insert_spans(&store, &mut next, 500_000, typical);
    writeln!(
        out,
        "typical spans: {:.2} µs processor time each",
        taken.as_secs_f64() * 1e6 / 5e5
    )?;
    memory(out, &store, before)?;
    queries(out, &store)?;

    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (store, stop) = (store.clone(), stop.clone());
        thread::spawn(move || steady(&store, next, &stop))
    };
    writeln!(out, "queries with 20,000 spans per second inserted:")?;
    queries(out, &store)?;
    stop.store(true, Ordering::Relaxed);
    if let Ok((rate, busy, longest)) = sender.join() {
        let (busy, longest) = (busy * 100.0, longest.as_secs_f64() * 1e3);
        writeln!(
            out,
            "  inserts: {rate:.0} per second, {busy:.1} % of a processor, {longest:.1} ms for the slowest batch"
        )?;
    }
    Ok(())
}

fn unique_spans(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Store::new(LIMIT);
    let taken = insert_spans(&store, &mut 1, 1_000_000, unique);
    writeln!(
        out,
        "traces of one small span with a unique name: {:.2} µs processor time each",
        taken.as_secs_f64()
    )?;
    memory(out, &store, before)?;
    queries(out, &store)
}

fn log_records(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Store::new(LIMIT);
    let mut taken = Duration::ZERO;
    for batch in 0..1_000 {
        let records = (0..512).map(|index| record(batch * 512 + index)).collect();
        taken += insert(&store, log_request(records));
    }
    writeln!(
        out,
        "log records: {:.2} µs processor time each",
        taken.as_secs_f64() * 1e6 / 512e3
    )?;
    memory(out, &store, before)
}

fn points(out: &mut StdoutLock<'_>) -> io::Result<()> {
    let before = resident()?;
    let store = Store::new(LIMIT);
    let mut taken = Duration::ZERO;
    for round in 1..=1_000 {
        taken += insert(
            &store,
            metric_request((0..1_000).map(|series| point(series, round)).collect()),
        );
    }
    writeln!(
        out,
        "histogram points: {:.2} µs processor time each",
        taken.as_secs_f64()
    )?;
    memory(out, &store, before)
}

/// Inserts `request` and returns the processor time used.
fn insert(store: &Store, request: Export) -> Duration {
    let start = processor_time();
    store.insert_at(request, store::now());
    processor_time() - start
}

/// Inserts at least `spans` spans and returns the processor time used.
fn insert_spans(store: &Store, next: &mut u64, spans: u64, make: fn(u64) -> Vec<Span>) -> Duration {
    let mut taken = Duration::ZERO;
    let mut count = 0;
    while count < spans {
        let batch = batch(next, make);
        count += batch.1;
        taken += insert(store, batch.0);
    }
    taken
}

/// Inserts 20,000 spans per second until stopped; returns the actual rate, the share of a processor, and the
/// duration of the slowest batch.
fn steady(store: &Store, mut next: u64, stop: &AtomicBool) -> (f64, f64, Duration) {
    let start_time = Instant::now();
    let (mut busy, mut longest, mut count) = (Duration::ZERO, Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let due = start_time + Duration::from_secs_f64(count as f64 / 20_000.0);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let batch = batch(&mut next, typical);
        count += batch.1;
        let (start, worked) = (Instant::now(), processor_time());
        store.insert_at(batch.0, store::now());
        busy += processor_time() - worked;
        longest = longest.max(start.elapsed());
    }
    let seconds = start_time.elapsed().as_secs_f64();
    (count as f64 / seconds, busy.as_secs_f64() / seconds, longest)
}

fn memory(out: &mut impl Write, store: &Store, before: usize) -> io::Result<()> {
    let usage = store.usage();
    let counted = usage.memory.traces_bytes + usage.memory.logs_bytes + usage.memory.metrics_bytes;
    let grown = resident()?.saturating_sub(before);
    writeln!(
        out,
        "  {} spans, {} records, {} points stored: {:.1} MiB counted, {:.1} MiB resident growth",
        usage.kept.spans,
        usage.kept.logs,
        usage.kept.points,
        mib(counted),
        mib(grown),
    )
}

fn queries(out: &mut impl Write, store: &Store) -> io::Result<()> {
    let all = TraceSearch {
        limit: 50,
        ..TraceSearch::default()
    };
    let absent_text = TraceSearch {
        text: Some(Text::new("absent text")),
        ..all.clone()
    };
    let absent_service = TraceSearch {
        service: Some("absent".to_owned()),
        ..all.clone()
    };
    let mut measure = |name: &str, query: &dyn Fn()| {
        let mut times: Vec<_> = (0..15)
            .map(|_| {
                let (start, worked) = (Instant::now(), processor_time());
                query();
                let worked = (processor_time() - worked).as_secs_f64() * 1e3;
                (worked, start.elapsed().as_secs_f64() * 1e3)
            })
            .collect();
        times.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let longest = times.iter().map(|(_, latency)| *latency).fold(0.0, f64::max);
        writeln!(
            out,
            "  {name}: {:.1} ms processor time; {longest:.1} ms maximum latency",
            times[7].0
        )
    };
    measure("overview", &|| {
        black_box(store.overview(WINDOW, store::now()));
    })?;
    measure("map", &|| {
        black_box(store.map(WINDOW, store::now(), None));
    })?;
    measure("newest 50 traces", &|| {
        black_box(store.search_traces(&all));
    })?;
    measure("traces of an absent service", &|| {
        black_box(store.search_traces(&absent_service));
    })?;
    measure("traces with an absent text", &|| {
        black_box(store.search_traces(&absent_text));
    })
}

/// Returns an export request and its number of spans.
fn batch(next: &mut u64, make: fn(u64) -> Vec<Span>) -> (Export, u64) {
    let traces = *next..*next + TRACES_PER_BATCH;
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

/// Returns the trace of a request with statements, like those of automatically instrumented services.
fn typical(trace: u64) -> Vec<Span> {
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
    let statements = (2..=SPANS_PER_TRACE).map(|id| {
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

/// Returns a trace of one span with a unique name.
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

/// Returns a log record with trace and span ids.
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

/// Returns a point of a cumulative histogram with the bounds that the semantic conventions recommend.
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

/// Returns the processor time of this thread, which other processes do not affect.
fn processor_time() -> Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = schedule.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Returns the resident memory of the process (`VmRSS`), in bytes.
fn resident() -> io::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    Ok(kibibytes.unwrap_or(0) * 1024)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
