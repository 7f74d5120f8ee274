//! Collectors that are down, silent, broken or overloaded affect only the telemetry, not the service.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use otel_service::Span;

use crate::scripted::{self, Reply, Seen};
use crate::support::{self, Behaviour, Problem, json_lines, value};

pub const ALL: [&str; 3] = ["logs", "metrics", "traces"];

/// Records `batches` spans, log records and measurements, 15 ms apart.
pub fn work(batches: usize) -> otel_service::Telemetry {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    static WORK: otel_service::Counter = otel_service::counter("work", "{piece}", "Work done.");
    support::block_on(async {
        for piece in 0..batches {
            Span::internal("work")
                .run(async {
                    WORK.add(1, &[]);
                    tracing::info!(piece, "working");
                    tokio::time::sleep(Duration::from_millis(15)).await;
                    Ok::<_, Problem>(())
                })
                .await
                .unwrap();
        }
    });
    telemetry
}

/// Shuts down and checks that the deadline is kept and that nothing was delivered.
pub fn stop_without_delivery(telemetry: otel_service::Telemetry, deadline: Duration) {
    let started = Instant::now();
    let mut error = telemetry.shutdown(deadline).unwrap_err();
    let took = started.elapsed();
    assert!(took < deadline + Duration::from_millis(500), "took {took:?}");
    error.signals.sort_unstable();
    assert_eq!(error.signals, ALL);
}

const SHORT_INTERVALS: [(&str, &str); 3] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "10"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "10"),
];

/// Returns the signals of the warnings, all of which must be from the export thread.
pub fn warned_signals(stdout: &str) -> Vec<String> {
    let mut signals: Vec<String> = json_lines(stdout)
        .iter()
        .filter(|line| line["level"] == "WARN" || line["level"] == "ERROR")
        .map(|line| {
            assert_eq!(line["target"], "otlp_recorder", "{line}");
            line["fields"]["telemetry.signal"].as_str().unwrap().to_owned()
        })
        .collect();
    signals.sort_unstable();
    signals
}

/// Returns the only log line of a signal that contains `message`.
pub fn log_line(stdout: &str, signal: &str, message: &str) -> serde_json::Value {
    let mut lines = json_lines(stdout)
        .into_iter()
        .filter(|line| line["fields"]["telemetry.signal"] == signal)
        .filter(|line| line["message"].as_str().unwrap().contains(message));
    let line = lines.next().unwrap_or_else(|| panic!("no {message}: {stdout}"));
    assert_eq!(lines.next(), None, "logged more than once");
    line
}

#[test]
fn a_success_with_a_malformed_body_is_a_success() {
    let test = "outages::a_success_with_a_malformed_body_is_a_success";
    let run = scripted::run(
        test,
        |_, _| Reply::GarbageBody,
        &[],
        || {
            work(2).shutdown(Duration::from_secs(10)).unwrap();
        },
    );
    if let Some((_, run)) = run {
        assert_eq!(warned_signals(&run.stdout), Vec::<String>::new());
    }
}

#[test]
fn a_retry_after_header_delays_the_retry_and_nothing_is_lost() {
    let test = "outages::a_retry_after_header_delays_the_retry_and_nothing_is_lost";
    let script = |_: &str, n| match n {
        0 => Reply::Later(1),
        _ => Reply::Accepts,
    };
    let run = scripted::run(test, script, &[], || {
        work(2).shutdown(Duration::from_secs(10)).unwrap();
    });
    if let Some((seen, run)) = run {
        for signal in ALL {
            let times: Vec<Instant> = seen
                .to(&format!("/v1/{signal}"))
                .map(|request| request.at)
                .collect();
            assert_eq!(times.len(), 2, "{signal}");
            assert!(times[1] - times[0] >= Duration::from_secs(1), "{signal}");
        }
        assert_eq!((seen.spans().len(), seen.logs().len()), (2, 2));
        assert_eq!(warned_signals(&run.stdout), Vec::<String>::new());
    }
}

#[test]
fn a_retry_delay_beyond_the_time_out_pauses_exports() {
    let test = "outages::a_retry_delay_beyond_the_time_out_pauses_exports";
    let script = |_: &str, n| match n {
        0 => Reply::Later(1),
        _ => Reply::Accepts,
    };
    let environment = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let run = scripted::run(test, script, &environment, || {
        let telemetry = work(4);
        // Longer than the first attempt can take: the retry delay must be known before the shutdown, during
        // which a failed export gets a second attempt.
        std::thread::sleep(Duration::from_millis(600));
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    });
    if let Some((seen, run)) = run {
        let times: Vec<Instant> = seen.to("/v1/traces").map(|request| request.at).collect();
        assert!(times[1] - times[0] >= Duration::from_secs(1));
        // The first batch timed out; the others waited in the queue.
        assert_eq!(seen.spans().len(), 3);
        assert_eq!(warned_signals(&run.stdout), ["traces"]);
        assert_eq!(
            log_line(&run.stdout, "traces", "delivered again")["fields"]["outage.lost"],
            1
        );
    }
}

#[test]
fn a_collector_that_is_down_is_reported_once() {
    let name = "outages::a_collector_that_is_down_is_reported_once";
    // The time-out is short, so retries end before the next batch is due.
    let environment = [
        SHORT_INTERVALS[0],
        SHORT_INTERVALS[1],
        SHORT_INTERVALS[2],
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "50"),
    ];
    let scenario = || stop_without_delivery(work(40), Duration::from_secs(10));
    if let Some(run) = support::run(name, Behaviour::Down, &environment, scenario) {
        assert_eq!(warned_signals(&run.stdout), ALL);
    }
}

#[test]
fn a_collector_that_fails_is_reported_once() {
    let name = "outages::a_collector_that_fails_is_reported_once";
    let scenario = || stop_without_delivery(work(40), Duration::from_secs(10));
    if let Some(run) = support::run(name, Behaviour::Fails, &SHORT_INTERVALS, scenario) {
        assert!(run.received.requests > 6, "{}", run.received.requests);
        assert_eq!(warned_signals(&run.stdout), ALL);
    }
}

#[test]
fn the_end_of_an_outage_is_reported_with_the_number_of_lost_items() {
    let name = "outages::the_end_of_an_outage_is_reported_with_the_number_of_lost_items";
    let scenario = || work(40).shutdown(Duration::from_secs(10)).unwrap();
    if let Some(run) = support::run(name, Behaviour::FailsAtFirst, &SHORT_INTERVALS, scenario) {
        assert_eq!(warned_signals(&run.stdout), ALL);
        for signal in ALL {
            let line = log_line(&run.stdout, signal, "telemetry is delivered again");
            assert!(line["fields"]["outage.lost"].as_u64().unwrap() >= 1, "{line}");
        }
        let lost = &log_line(&run.stdout, "traces", "delivered again")["fields"]["outage.lost"];
        assert_eq!(run.received.spans.len() as u64, 40 - lost.as_u64().unwrap());
        assert!(!run.received.logs.is_empty());
        run.received.metric("work");
    }
}

/// Returns the value of the data point of a counter with this `error.type`.
pub fn counted(seen: &Seen, name: &str, error_type: Option<&str>) -> Option<i64> {
    let Some(metric::Data::Sum(sum)) = seen.metric(name).data else {
        panic!("{name} is not a sum");
    };
    assert!(sum.is_monotonic, "{name}");
    let expected = error_type.map(|text| format!("{text:?}"));
    let point = sum
        .data_points
        .iter()
        .find(|point| value(&point.attributes, "error.type") == expected)?;
    match point.value {
        Some(number_data_point::Value::AsInt(number)) => Some(number),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn spans_dropped_during_an_outage_are_counted_and_logged_once() {
    const SPANS: usize = 20_000;
    let name = "outages::spans_dropped_during_an_outage_are_counted_and_logged_once";
    // The collector does not respond to the first export of spans, and recovers afterwards.
    let script = |path: &str, n| match (path, n) {
        ("/v1/traces", 0) => Reply::Silence,
        _ => Reply::Accepts,
    };
    let environment = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
    ];
    let run = scripted::run(name, script, &environment, || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        let started = Instant::now();
        support::block_on(async {
            for _ in 0..SPANS {
                let work = async { Ok::<_, Problem>(()) };
                Span::internal("work").run(work).await.unwrap();
            }
        });
        // Waiting for five exports would take as long.
        assert!(started.elapsed() < Duration::from_secs(10));
        // The collector has recovered.
        scripted::wait_for("/v1/traces", 2, Duration::from_secs(20));
        telemetry.shutdown(Duration::from_secs(20)).unwrap();
    });
    if let Some((seen, run)) = run {
        assert_eq!(
            log_line(&run.stdout, "traces", "queue is full")["fields"]["queue.capacity"],
            64
        );
        let dropped = log_line(&run.stdout, "traces", "no longer full")["fields"]["queue.dropped"]
            .as_i64()
            .unwrap();
        let processed = "otel.sdk.processor.span.processed";
        assert_eq!(counted(&seen, processed, Some("queue_full")), Some(dropped));
        let lost = log_line(&run.stdout, "traces", "delivered again")["fields"]["outage.lost"]
            .as_i64()
            .unwrap();
        let exported = "otel.sdk.exporter.span.exported";
        assert_eq!(counted(&seen, exported, Some("timeout")), Some(lost));
        let delivered = seen.spans().len() as i64;
        assert_eq!(dropped + lost + delivered, SPANS as i64);
        assert!(dropped > 10_000, "{dropped}");
    }
}
