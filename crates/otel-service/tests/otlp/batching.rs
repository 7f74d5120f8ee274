//! The variables of queues, batches and limits. Each has a scenario whose result depends on it.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use otel_service::opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceFlags, TraceId, TraceState, Tracer,
};
use otel_service::opentelemetry::{KeyValue as Attribute, global};

use crate::scripted::{self, Reply};
use crate::support::{self, json_lines, value};

/// A delay in milliseconds that exceeds any scenario.
const NEVER: &str = "3600000";

fn accepts(_: &str, _: usize) -> Reply {
    Reply::Accepts
}

fn spans(count: usize) {
    let tracer = global::tracer("test");
    for _ in 0..count {
        tracer.start("work").end();
    }
}

fn logs(count: usize) {
    for piece in 0..count {
        tracing::info!(piece, "working");
    }
}

fn sizes(seen: &scripted::Seen) -> (Vec<usize>, Vec<usize>) {
    (
        seen.to("/v1/traces")
            .map(|request| request.spans().len())
            .collect(),
        seen.to("/v1/logs").map(|request| request.logs().len()).collect(),
    )
}

#[test]
fn the_batch_size_variable_limits_batches() {
    let run = scripted::run(
        "batching::the_batch_size_variable_limits_batches",
        accepts,
        &[
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3"),
            ("OTEL_BSP_SCHEDULE_DELAY", NEVER),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2"),
            ("OTEL_BLRP_SCHEDULE_DELAY", NEVER),
        ],
        || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            spans(7);
            logs(5);
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    );
    if let Some((seen, _)) = run {
        assert_eq!(sizes(&seen), (vec![3, 3, 1], vec![2, 2, 1]));
    }
}

#[test]
fn a_full_batch_is_exported_immediately_and_a_small_batch_waits() {
    let run = scripted::run(
        "batching::a_full_batch_is_exported_immediately_and_a_small_batch_waits",
        accepts,
        &[
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
            ("OTEL_BSP_SCHEDULE_DELAY", NEVER),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2"),
            ("OTEL_BLRP_SCHEDULE_DELAY", NEVER),
        ],
        || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            logs(1);
            // Longer than the default delay of log records.
            std::thread::sleep(Duration::from_millis(1_200));
            spans(2);
            logs(1);
            scripted::wait_for("/v1/traces", 1, Duration::from_secs(10));
            scripted::wait_for("/v1/logs", 1, Duration::from_secs(10));
            // Simulates a process that exits without a shutdown.
            std::mem::forget(telemetry);
        },
    );
    if let Some((seen, _)) = run {
        assert_eq!(sizes(&seen), (vec![2], vec![2]));
    }
}

#[test]
fn a_small_batch_is_exported_after_the_configured_delay() {
    let run = scripted::run(
        "batching::a_small_batch_is_exported_after_the_configured_delay",
        accepts,
        &[
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
        ],
        || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            spans(1);
            // Shorter than the default delays of 5 and 60 seconds.
            scripted::wait_for("/v1/traces", 1, Duration::from_secs(4));
            scripted::wait_for("/v1/metrics", 2, Duration::from_secs(20));
            std::mem::forget(telemetry);
        },
    );
    if let Some((seen, _)) = run {
        assert_eq!(sizes(&seen).0, [1]);
    }
}

#[test]
fn the_queue_size_variable_limits_queues() {
    let run = scripted::run(
        "batching::the_queue_size_variable_limits_queues",
        |_, _| Reply::Silence,
        &[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "40"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "30"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "10"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ],
        || {
            let telemetry = otel_service::init(support::SERVICE).unwrap();
            // One batch of each signal is in flight during the whole scenario.
            spans(10);
            logs(10);
            scripted::wait_for("/v1/traces", 1, Duration::from_secs(10));
            scripted::wait_for("/v1/logs", 1, Duration::from_secs(10));
            spans(100);
            logs(100);
            let error = telemetry.shutdown(Duration::from_millis(200)).unwrap_err();
            assert_eq!(error.signals.len(), 2);
        },
    );
    if let Some((_, run)) = run {
        let dropped = |signal: &str| {
            json_lines(&run.stdout)
                .iter()
                .find(|line| {
                    line["fields"]["telemetry.signal"] == signal
                        && line["message"].as_str().unwrap().contains("no longer full")
                })
                .unwrap_or_else(|| panic!("no log event for {signal}: {}", run.stdout))["fields"]["queue.dropped"]
                .as_u64()
        };
        assert_eq!((dropped("traces"), dropped("logs")), (Some(60), Some(70)));
    }
}

/// Leaves the first request to `path` without a response. Unless that export times out as configured, the
/// second export is not delivered before the shutdown deadline, which is shorter than the default time-out of
/// ten seconds.
fn assert_export_times_out(test: &str, path: &'static str, environment: &[(&str, &str)], work: impl Fn()) {
    let script = move |requested: &str, n| match (requested == path, n) {
        (true, 0) => Reply::Silence,
        _ => Reply::Accepts,
    };
    let run = scripted::run(test, script, environment, || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        work();
        scripted::wait_for(path, 1, Duration::from_secs(10));
        work();
        telemetry.shutdown(Duration::from_secs(7)).unwrap();
    });
    if let Some((seen, _)) = run {
        assert!(seen.to(path).count() >= 2);
    }
}

#[test]
fn an_export_of_spans_times_out_as_configured() {
    assert_export_times_out(
        "batching::an_export_of_spans_times_out_as_configured",
        "/v1/traces",
        &[
            ("OTEL_BSP_EXPORT_TIMEOUT", "200"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ],
        || spans(1),
    );
}

#[test]
fn an_export_of_logs_times_out_as_configured() {
    assert_export_times_out(
        "batching::an_export_of_logs_times_out_as_configured",
        "/v1/logs",
        &[
            ("OTEL_BLRP_EXPORT_TIMEOUT", "200"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "1"),
        ],
        || logs(1),
    );
}

#[test]
fn an_export_of_metrics_times_out_as_configured() {
    assert_export_times_out(
        "batching::an_export_of_metrics_times_out_as_configured",
        "/v1/metrics",
        &[
            ("OTEL_METRIC_EXPORT_TIMEOUT", "200"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
        ],
        || {},
    );
}

/// Records a span and a log record that exceed all limits.
fn exceed_all_limits() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    let attributes = || -> Vec<Attribute> {
        (0..20)
            .map(|n| Attribute::new(format!("key.{n}"), "0123456789abcdef"))
            .collect()
    };
    let mut span = global::tracer("test").start("work");
    span.set_attributes(attributes());
    for n in 1..20_u64 {
        span.add_event("happened", attributes());
        let other = SpanContext::new(
            TraceId::from(7),
            SpanId::from(n),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        span.add_link(other, attributes());
    }
    span.end();
    tracing::info!(
        a = "0123456789abcdef",
        b = 2,
        c = 3,
        d = 4,
        e = 5,
        f = 6,
        g = 7,
        "much"
    );
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

/// Returns the length of the longest string attribute.
fn longest(attributes: &[KeyValue]) -> usize {
    attributes
        .iter()
        .filter(|attribute| attribute.key.len() < 7)
        .filter_map(|attribute| value(attributes, &attribute.key))
        .filter(|shown| shown.starts_with('"'))
        .map(|shown| shown.len() - 2)
        .max()
        .unwrap_or_default()
}

#[test]
fn limits_of_spans_and_logs_are_configurable() {
    let run = scripted::run(
        "batching::limits_of_spans_and_logs_are_configurable",
        accepts,
        &[
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "1"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3"),
            ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "6"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "2"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "4"),
            ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "5"),
            ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "7"),
            ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "6"),
            ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8"),
        ],
        exceed_all_limits,
    );
    if let Some((seen, _)) = run {
        let span = &seen.spans()[0];
        assert_eq!((span.attributes.len(), span.dropped_attributes_count), (3, 17));
        assert_eq!((span.events.len(), span.dropped_events_count), (2, 17));
        assert_eq!((span.links.len(), span.dropped_links_count), (4, 15));
        assert_eq!(longest(&span.attributes), 6);
        let event = &span.events[0];
        assert_eq!((event.attributes.len(), event.dropped_attributes_count), (5, 15));
        assert_eq!(longest(&event.attributes), 6);
        let link = &span.links[0];
        assert_eq!((link.attributes.len(), link.dropped_attributes_count), (7, 13));
        assert_eq!(longest(&link.attributes), 6);

        let log = &seen.logs()[0];
        assert_eq!(log.attributes.len(), 6);
        assert!(log.dropped_attributes_count > 0);
        assert_eq!(longest(&log.attributes), 8);
    }
}

#[test]
fn the_general_limits_apply_if_no_specific_limit_is_set() {
    let run = scripted::run(
        "batching::the_general_limits_apply_if_no_specific_limit_is_set",
        accepts,
        &[
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "5"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4"),
        ],
        exceed_all_limits,
    );
    if let Some((seen, _)) = run {
        let span = &seen.spans()[0];
        assert_eq!(span.attributes.len(), 5);
        assert_eq!(longest(&span.attributes), 4);
        let log = &seen.logs()[0];
        assert_eq!(log.attributes.len(), 5);
        assert_eq!(longest(&log.attributes), 4);
    }
}
