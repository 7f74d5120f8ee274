//! Metrics of the process and the runtime, and the cardinality limits of instruments.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use otel_service::{HttpLayer, KeyValue};
use tower::{Layer, Service};

use crate::support::{self, Behaviour, number, value};

fn idle() {
    let telemetry = support::init().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    otel_service::observe_runtime(runtime.handle());
    otel_service::observe_runtime(other.handle());
    let (keep, kept) = tokio::sync::oneshot::channel::<()>();
    runtime.spawn(async { kept.await.is_ok() });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
    drop(keep);
}

/// Returns the instrument and unit of a metric.
fn kind(received: &support::Received, name: &str) -> String {
    let metric = received.metric(name);
    let kind = match &metric.data {
        Some(Data::Sum(sum)) if sum.is_monotonic => "counter",
        Some(Data::Sum(_)) => "updowncounter",
        Some(Data::Gauge(_)) => "gauge",
        other => panic!("{name}: {other:?}"),
    };
    format!("{kind} {}", metric.unit)
}

fn numbers(received: &support::Received, name: &str) -> Vec<f64> {
    received.numbers(name).iter().map(number).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn metrics_of_the_process_and_the_runtime_are_exported() {
    let Some(run) = support::run(
        "measures::metrics_of_the_process_and_the_runtime_are_exported",
        Behaviour::Accepts,
        &[],
        idle,
    ) else {
        return;
    };
    let received = run.received;
    for (name, expected) in [
        ("process.cpu.time", "counter s"),
        ("process.memory.usage", "updowncounter By"),
        ("process.memory.virtual", "updowncounter By"),
        ("process.thread.count", "updowncounter {thread}"),
        (
            "process.unix.file_descriptor.count",
            "updowncounter {file_descriptor}",
        ),
        ("process.uptime", "gauge s"),
        ("tokio.runtime.workers", "updowncounter {worker}"),
        ("tokio.runtime.alive_tasks", "updowncounter {task}"),
        ("tokio.runtime.global_queue.depth", "updowncounter {task}"),
        ("tokio.runtime.worker.busy_time", "counter s"),
        ("tokio.runtime.worker.parks", "counter {park}"),
        ("log.output.dropped", "counter {line}"),
    ] {
        assert_eq!(kind(&received, name), expected, "{name}");
    }
    let mut modes: Vec<_> = received
        .numbers("process.cpu.time")
        .iter()
        .map(|point| value(&point.attributes, "cpu.mode").unwrap())
        .collect();
    modes.sort();
    assert_eq!(modes, ["\"system\"", "\"user\""]);
    let resident = numbers(&received, "process.memory.usage")[0];
    assert!(resident > 1_000_000.0, "{resident}");
    assert!(numbers(&received, "process.memory.virtual")[0] > resident);
    assert!(numbers(&received, "process.thread.count")[0] >= 3.0);
    assert!(numbers(&received, "process.unix.file_descriptor.count")[0] >= 3.0);
    assert!(numbers(&received, "process.uptime")[0] > 0.0);
    let mut streams: Vec<_> = received
        .numbers("log.output.dropped")
        .iter()
        .map(|point| value(&point.attributes, "log.iostream").unwrap())
        .collect();
    streams.sort();
    assert_eq!(streams, ["\"stderr\"", "\"stdout\""]);
    assert_eq!(numbers(&received, "tokio.runtime.workers"), [3.0]);
    assert_eq!(numbers(&received, "tokio.runtime.alive_tasks"), [1.0]);
    let mut workers: Vec<_> = received
        .numbers("tokio.runtime.worker.parks")
        .iter()
        .map(|point| value(&point.attributes, "tokio.worker.index").unwrap())
        .collect();
    workers.sort();
    assert_eq!(workers, ["0", "1", "2"]);
}

static VISITS: otel_service::Counter = otel_service::counter("visits", "{visit}", "Visits by visitor.");
static STAYS: otel_service::Histogram =
    otel_service::histogram("stay.duration", "Duration of a stay by visitor.");

/// Number of attribute sets, far beyond the limit of 2,000 in the SDK.
const VISITORS: i64 = 100_000;

/// Returns the resident anonymous memory in bytes, which excludes pages of the program file.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1_024
}

fn flood() {
    let telemetry = support::init().unwrap();
    let visit = |visitor: i64| {
        let attributes = [KeyValue::new("visitor.id", visitor)];
        VISITS.add(1, &attributes);
        STAYS.record(Duration::from_millis(20), &attributes);
    };
    (0..5_000).for_each(visit);
    let before = resident();
    (5_000..VISITORS).for_each(visit);
    let grown = resident().saturating_sub(before);
    assert!(grown < 1_000_000, "memory grew by {grown} bytes beyond the limit");
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn too_many_attribute_sets_overflow_into_one_data_point() {
    let Some(run) = support::run(
        "measures::too_many_attribute_sets_overflow_into_one_data_point",
        Behaviour::Accepts,
        &[],
        flood,
    ) else {
        return;
    };
    let counted = run.received.numbers("visits");
    assert_eq!(counted.len(), 2_001);
    let overflow: Vec<f64> = counted
        .iter()
        .filter(|point| value(&point.attributes, "otel.metric.overflow").as_deref() == Some("true"))
        .map(number)
        .collect();
    assert_eq!(overflow, [(VISITORS - 2_000) as f64]);

    let stayed = run.received.histogram("stay.duration");
    assert_eq!(stayed.len(), 2_001);
    assert_eq!(
        stayed.iter().map(|point| point.count).sum::<u64>(),
        VISITORS as u64
    );
    let overflow: Vec<u64> = stayed
        .iter()
        .filter(|point| value(&point.attributes, "otel.metric.overflow").as_deref() == Some("true"))
        .map(|point| point.count)
        .collect();
    assert_eq!(overflow, [VISITORS as u64 - 2_000]);
}

/// Number of routes, beyond the limits of the series caches.
const LABEL_VALUES: u64 = 700;

fn many_label_values() {
    let telemetry = support::init().unwrap();
    support::block_on(async {
        let layer = HttpLayer::new(|parts| Some(parts.uri.path()));
        let respond = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let mut service = layer.layer(tower::service_fn(respond));
        // The second round uses the series that the first round has cached.
        for kind in (0..LABEL_VALUES).chain(0..LABEL_VALUES) {
            let request = Request::builder().uri(format!("/{kind}")).body(()).unwrap();
            drop(service.call(request).await.unwrap());
        }
    });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn series_beyond_the_cache_limits_are_recorded() {
    let Some(run) = support::run(
        "measures::series_beyond_the_cache_limits_are_recorded",
        Behaviour::Accepts,
        &[],
        many_label_values,
    ) else {
        return;
    };
    let kinds = LABEL_VALUES as usize;
    assert_eq!(numbers(&run.received, "http_requests_total"), vec![2.0; kinds]);
    for name in ["http_request_duration_seconds", "http.server.request.duration"] {
        let counts: Vec<u64> = run
            .received
            .histogram(name)
            .iter()
            .map(|point| point.count)
            .collect();
        assert_eq!(counts, vec![2; kinds], "{name}");
    }
    assert_eq!(numbers(&run.received, "http.server.active_requests"), [0.0]);
}

#[test]
fn the_names_of_pythons_instrumentation_are_off_by_default() {
    let Some(run) = support::run(
        "measures::the_names_of_pythons_instrumentation_are_off_by_default",
        Behaviour::Accepts,
        &[],
        || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            support::block_on(async {
                let service = tower::service_fn(async |_: Request<Body>| {
                    otel_service::info!("served");
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                });
                let response = HttpLayer::new(|_| None)
                    .layer(service)
                    .call(Request::new(Body::empty()))
                    .await;
                drop(response.unwrap());
            });
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    ) else {
        return;
    };
    let received = run.received;
    received.metric("http.server.request.duration");
    let plain = |metric: &&opentelemetry_proto::tonic::metrics::v1::Metric| metric.name.starts_with("http_");
    assert!(!received.metrics.iter().any(|metric| plain(&metric)));
    let record = received.log("served");
    assert!(!record.trace_id.is_empty());
    assert_eq!(value(&record.attributes, "otelTraceID"), None);
}
