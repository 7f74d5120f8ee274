//! What is measured without anybody recording it, and what happens to instruments that are given too many attributes.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use otel_service::{HttpLayer, KeyValue, Messaging, Outcome, Processed, TaskMessage};
use tower::{Layer, Service};

use crate::support::{self, Behaviour, number, value};

fn idle() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    otel_service::observe_runtime(runtime.handle());
    let (keep, kept) = tokio::sync::oneshot::channel::<()>();
    runtime.spawn(async { kept.await.is_ok() });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
    drop(keep);
}

/// Name, unit and kind: a sum, which may be monotonic, or a gauge.
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
fn the_process_and_its_runtime_are_measured() {
    let Some(run) = support::run(
        "measures::the_process_and_its_runtime_are_measured",
        Behaviour::Takes,
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
    assert_eq!(numbers(&received, "tokio.runtime.workers"), [2.0]);
    assert_eq!(numbers(&received, "tokio.runtime.alive_tasks"), [1.0]);
    let mut workers: Vec<_> = received
        .numbers("tokio.runtime.worker.parks")
        .iter()
        .map(|point| value(&point.attributes, "tokio.worker.index").unwrap())
        .collect();
    workers.sort();
    assert_eq!(workers, ["0", "1"]);
}

static VISITS: otel_service::Counter = otel_service::counter("visits", "{visit}", "Visits by who came.");
static STAYS: otel_service::Histogram = otel_service::histogram("stay.duration", "How long who came stayed.");

/// Far beyond the SDK's limit of 2,000.
const VISITORS: i64 = 100_000;

/// Resident memory in bytes, without the pages of the program, which come in when they are first used.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1_024
}

fn flood() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    let visit = |visitor: i64| {
        let attributes = [KeyValue::new("visitor.id", visitor)];
        VISITS.add(1, &attributes);
        STAYS.record(Duration::from_millis(20), &attributes);
    };
    (0..5_000).for_each(visit);
    let before = resident();
    (5_000..VISITORS).for_each(visit);
    let grown = resident().saturating_sub(before);
    assert!(grown < 1_000_000, "{grown} bytes for what does not fit");
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn too_many_attributes_overflow_into_one_point_and_take_no_memory() {
    let Some(run) = support::run(
        "measures::too_many_attributes_overflow_into_one_point_and_take_no_memory",
        Behaviour::Takes,
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

/// More than the routes, queues and tasks whose series are looked up once.
const KINDS: u64 = 700;

fn many_kinds() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    support::block_on(async {
        let layer = HttpLayer::new(|parts| Some(parts.uri.path()));
        let answer = |_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        let mut service = layer.layer(tower::service_fn(answer));
        let messaging = Messaging::new("worker@host");
        // Twice: the first makes a series, the second finds it or not.
        for kind in (0..KINDS).chain(0..KINDS) {
            let request = Request::builder().uri(format!("/{kind}")).body(()).unwrap();
            drop(service.call(request).await.unwrap());
            let (task, queue) = (format!("task-{kind}"), format!("queue-{}", kind % 100));
            let message = TaskMessage {
                task: &task,
                id: "1",
                queue: &queue,
            };
            messaging.send(&message, None).finish(Ok(()));
            let describe = |(): &()| Processed {
                outcome: Outcome::Success,
                exception: None,
            };
            let parent = otel_service::Context::new();
            messaging.process(&message, 0, parent, async {}, describe).await;
        }
    });
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn kinds_that_no_series_is_kept_for_are_measured_all_the_same() {
    let Some(run) = support::run(
        "measures::kinds_that_no_series_is_kept_for_are_measured_all_the_same",
        Behaviour::Takes,
        &[],
        many_kinds,
    ) else {
        return;
    };
    let kinds = KINDS as usize;
    for (name, points, each) in [
        ("http_requests_total", kinds, 2.0),
        ("celery_tasks_total", kinds, 2.0),
        ("messaging.client.sent.messages", 100, 14.0),
        ("messaging.client.consumed.messages", 100, 14.0),
    ] {
        assert_eq!(numbers(&run.received, name), vec![each; points], "{name}");
    }
    for (name, points, each) in [
        ("http_request_duration_seconds", kinds, 2),
        ("http.server.request.duration", kinds, 2),
        ("celery_task_duration_seconds", kinds, 2),
        ("messaging.process.duration", 100, 14),
    ] {
        let counts: Vec<u64> = run
            .received
            .histogram(name)
            .iter()
            .map(|point| point.count)
            .collect();
        assert_eq!(counts, vec![each; points], "{name}");
    }
    assert_eq!(numbers(&run.received, "http.server.active_requests"), [0.0]);
}
