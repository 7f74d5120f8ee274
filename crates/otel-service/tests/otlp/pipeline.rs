//! The export thread from the outside: its lifetime, its own metrics, and its robustness against gauges.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use otel_service::Span;

use crate::outages::{ALL, counted, log_line, warned_signals, work};
use crate::scripted::{self, Reply, Seen};
use crate::support::{self, Problem, value};

/// Returns the number of export threads of this process.
fn export_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|thread| {
            let name = std::fs::read_to_string(thread.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| name.trim() == "telemetry")
        })
        .count()
}

/// Runs a scenario and checks the number of export threads during it.
fn run_with_threads(test: &str, environment: &[(&str, &str)], threads: usize) -> Option<Seen> {
    let run = scripted::run(
        test,
        |_, _| Reply::Accepts,
        environment,
        || {
            let telemetry = work(2);
            assert_eq!(export_threads(), threads);
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    );
    run.map(|(seen, _)| seen)
}

#[test]
fn there_is_one_export_thread() {
    let seen = run_with_threads("pipeline::there_is_one_export_thread", &[], 1);
    if let Some(seen) = seen {
        assert!(seen.connections > 0);
    }
}

#[test]
fn a_disabled_sdk_has_no_thread_and_no_connection() {
    let test = "pipeline::a_disabled_sdk_has_no_thread_and_no_connection";
    if let Some(seen) = run_with_threads(test, &[("OTEL_SDK_DISABLED", "true")], 0) {
        assert_eq!((seen.connections, seen.requests.len()), (0, 0));
    }
}

#[test]
fn without_exporters_there_is_no_thread_and_no_connection() {
    let environment = [
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
    ];
    let test = "pipeline::without_exporters_there_is_no_thread_and_no_connection";
    if let Some(seen) = run_with_threads(test, &environment, 0) {
        assert_eq!((seen.connections, seen.requests.len()), (0, 0));
    }
}

#[test]
fn the_pipeline_exports_metrics_about_itself() {
    let test = "pipeline::the_pipeline_exports_metrics_about_itself";
    let environment = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "200"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
    ];
    let run = scripted::run(
        test,
        |_, _| Reply::Accepts,
        &environment,
        || {
            let telemetry = work(3);
            scripted::wait_for("/v1/traces", 1, Duration::from_secs(10));
            scripted::wait_for("/v1/logs", 1, Duration::from_secs(10));
            scripted::wait_for("/v1/metrics", 2, Duration::from_secs(10));
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    );
    if let Some((seen, _)) = run {
        // The last metrics may or may not include the final flush.
        // Counted by the SDK.
        assert!(counted(&seen, "otel.sdk.log.created", None).unwrap() >= 3);
        for (name, component) in [
            ("otel.sdk.processor.span.processed", "batching_span_processor"),
            ("otel.sdk.processor.log.processed", "batching_log_processor"),
            ("otel.sdk.exporter.span.exported", "otlp_http_span_exporter"),
            ("otel.sdk.exporter.log.exported", "otlp_http_log_exporter"),
        ] {
            assert!((2..=3).contains(&counted(&seen, name, None).unwrap()), "{name}");
            assert_component(&seen, name, component);
        }
        let points = "otel.sdk.exporter.metric_data_point.exported";
        assert!(counted(&seen, points, None).unwrap() > 5);
        for (name, expected) in [
            ("otel.sdk.processor.span.queue.capacity", 100..=100),
            ("otel.sdk.processor.log.queue.capacity", 200..=200),
            ("otel.sdk.processor.span.queue.size", 0..=1),
            ("otel.sdk.processor.log.queue.size", 0..=1),
            ("otel.sdk.span.live", 0..=0),
            ("otel.sdk.exporter.span.inflight", 0..=2),
            ("otel.sdk.exporter.log.inflight", 0..=2),
            ("otel.sdk.exporter.metric_data_point.inflight", 0..=0),
        ] {
            let Some(metric::Data::Sum(sum)) = seen.metric(name).data else {
                panic!("{name} is not a sum");
            };
            assert!(!sum.is_monotonic, "{name}");
            let Some(number_data_point::Value::AsInt(number)) = sum.data_points[0].value else {
                panic!("{name} is not an integer");
            };
            assert!(expected.contains(&number), "{name} is {number}");
        }
        for (name, created) in [("otel.sdk.span.started", 3), ("otel.sdk.log.created", 3)] {
            assert_eq!(counted(&seen, name, None), Some(created), "{name}");
        }
        let collections = seen.metric("otel.sdk.metric_reader.collection.duration");
        assert_eq!(collections.unit, "s");
        let Some(metric::Data::Histogram(collections)) = collections.data else {
            panic!("no histogram");
        };
        assert_eq!(
            value(&collections.data_points[0].attributes, "otel.component.type").as_deref(),
            Some("\"periodic_metric_reader\"")
        );
        let duration = seen.metric("otel.sdk.exporter.operation.duration");
        assert_eq!(duration.unit, "s");
        let Some(metric::Data::Histogram(histogram)) = duration.data else {
            panic!("no histogram");
        };
        assert_eq!(histogram.data_points.len(), ALL.len());
        for point in &histogram.data_points {
            assert!(value(&point.attributes, "server.port").is_some());
            assert_eq!(
                value(&point.attributes, "server.address").as_deref(),
                Some("\"127.0.0.1\"")
            );
        }
    }
}

fn assert_component(seen: &Seen, name: &str, component: &str) {
    let Some(metric::Data::Sum(sum)) = seen.metric(name).data else {
        panic!("{name} is not a sum");
    };
    let attributes = &sum.data_points[0].attributes;
    assert_eq!(
        value(attributes, "otel.component.type"),
        Some(format!("{component:?}"))
    );
    assert_eq!(
        value(attributes, "otel.component.name"),
        Some(format!("\"{component}/0\""))
    );
}

#[test]
fn a_blocking_gauge_affects_metrics_only() {
    let name = "pipeline::a_blocking_gauge_affects_metrics_only";
    let environment = [
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "100"),
    ];
    let run = scripted::run(
        name,
        |_, _| Reply::Accepts,
        &environment,
        || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            let (called, is_called) = std::sync::mpsc::channel();
            otel_service::observe_gauge("stuck", "1", "Blocks.", move || {
                let _ = called.send(());
                loop {
                    std::thread::park();
                }
            });
            is_called.recv_timeout(Duration::from_secs(20)).unwrap();
            // Creating an instrument in the meantime must not block.
            static LATE: otel_service::Counter = otel_service::counter("late", "1", "Created late.");
            LATE.add(1, &[]);
            support::block_on(Span::internal("after").run(async { Ok::<_, Problem>(()) })).unwrap();
            scripted::wait_for("/v1/traces", 1, Duration::from_secs(20));
            let started = Instant::now();
            let error = telemetry.shutdown(Duration::from_secs(3)).unwrap_err();
            assert_eq!(error.signals, ["metrics"]);
            assert!(started.elapsed() < Duration::from_secs(4));
        },
    );
    if let Some((seen, run)) = run {
        assert_eq!(seen.spans().len(), 1);
        assert_eq!(warned_signals(&run.stdout), ["metrics"]);
        let line = log_line(&run.stdout, "metrics", "cannot be delivered");
        assert!(
            line["fields"]["exception.message"]
                .as_str()
                .unwrap()
                .contains("callback")
        );
    }
}

#[test]
fn a_panicking_gauge_affects_only_itself() {
    let name = "pipeline::a_panicking_gauge_affects_only_itself";
    let environment = [("OTEL_METRIC_EXPORT_INTERVAL", "20")];
    let run = scripted::run(
        name,
        |_, _| Reply::Accepts,
        &environment,
        || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            otel_service::observe_gauge("broken", "1", "Panics.", || panic!("of the scenario"));
            otel_service::observe_gauge("whole", "1", "Does not panic.", || vec![(7.0, Vec::new())]);
            scripted::wait_for("/v1/metrics", 3, Duration::from_secs(20));
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    );
    if let Some((seen, run)) = run {
        seen.metric("whole");
        let line = log_line(&run.stdout, "metrics", "the callback of a gauge panicked");
        assert_eq!(line["fields"]["telemetry.gauge"], "broken");
    }
}
