//! A collector that is down, silent or broken costs the service nothing but the telemetry.

use std::time::{Duration, Instant};
use telemetry::Span;

use crate::support::{self, Behaviour, Problem, json_lines};

const ALL: [&str; 3] = ["logs", "metrics", "traces"];

/// Works for a while with small, frequent batches.
fn work(batches: usize) -> telemetry::Telemetry {
    let telemetry = telemetry::init(support::SERVICE).unwrap();
    static WORK: telemetry::Counter = telemetry::counter("work", "{piece}", "Work done.");
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

/// Works, then shuts down within `deadline` with nothing delivered.
fn work_and_stop(batches: usize, deadline: Duration) {
    let telemetry = work(batches);
    let started = Instant::now();
    let mut error = telemetry.shutdown(deadline).unwrap_err();
    let took = started.elapsed();
    assert!(took < deadline + Duration::from_millis(500), "took {took:?}");
    error.signals.sort_unstable();
    assert_eq!(error.signals, ALL);
}

/// Exports often, and soon gives up on each.
const OFTEN: [(&str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
    ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "10"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "10"),
];

fn complaints(stdout: &str) -> Vec<String> {
    let mut signals: Vec<String> = json_lines(stdout)
        .iter()
        .filter(|line| line["level"] == "WARN" || line["level"] == "ERROR")
        .map(|line| {
            assert_eq!(line["target"], "telemetry::export", "{line}");
            line["fields"]["signal"].as_str().unwrap().to_owned()
        })
        .collect();
    signals.sort_unstable();
    signals
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_is_silent() {
    let name = "outages::shutdown_keeps_its_deadline_when_the_collector_is_silent";
    support::run(name, Behaviour::Blackhole, &[], || {
        work_and_stop(2, Duration::from_millis(700));
    });
}

#[test]
fn a_collector_that_is_down_is_reported_once() {
    let name = "outages::a_collector_that_is_down_is_reported_once";
    let scenario = || work_and_stop(40, Duration::from_secs(10));
    if let Some(run) = support::run(name, Behaviour::Down, &OFTEN, scenario) {
        assert_eq!(complaints(&run.stdout), ALL);
    }
}

#[test]
fn a_collector_that_fails_is_reported_once() {
    let name = "outages::a_collector_that_fails_is_reported_once";
    let scenario = || work_and_stop(40, Duration::from_secs(10));
    if let Some(run) = support::run(name, Behaviour::Fails, &OFTEN, scenario) {
        assert!(run.received.requests > 6, "{}", run.received.requests);
        assert_eq!(complaints(&run.stdout), ALL);
    }
}

#[test]
fn what_overflows_is_counted_and_reported_once() {
    let name = "outages::what_overflows_is_counted_and_reported_once";
    let run = support::run(
        name,
        Behaviour::Blackhole,
        &[
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ],
        || {
            let telemetry = telemetry::init(support::SERVICE).unwrap();
            let started = Instant::now();
            support::block_on(async {
                for _ in 0..1000 {
                    let work = async { Ok::<_, Problem>(()) };
                    Span::internal("work").run(work).await.unwrap();
                }
            });
            assert!(started.elapsed() < Duration::from_secs(5));
            telemetry.shutdown(Duration::from_millis(200)).unwrap_err();
        },
    );
    if let Some(run) = run {
        let lines = json_lines(&run.stdout);
        let about_drops = lines
            .iter()
            .filter(|line| line.to_string().contains("does not fit into the queue"))
            .count();
        assert_eq!(about_drops, 1, "{lines:?}");
        let dropped = lines
            .iter()
            .find_map(|line| line["fields"]["dropped"].as_i64())
            .unwrap();
        assert!((990..1000).contains(&dropped), "{dropped}");
    }
}

#[test]
fn an_outage_that_ends_is_reported_with_what_was_lost() {
    let name = "outages::an_outage_that_ends_is_reported_with_what_was_lost";
    let scenario = || work(40).shutdown(Duration::from_secs(10)).unwrap();
    if let Some(run) = support::run(name, Behaviour::FailsAtFirst, &OFTEN, scenario) {
        assert_eq!(complaints(&run.stdout), ALL);
        let mut over: Vec<String> = json_lines(&run.stdout)
            .iter()
            .filter(|line| line["message"] == "telemetry is delivered again")
            .map(|line| {
                assert!(line["fields"]["lost"].as_u64().unwrap() >= 1, "{line}");
                line["fields"]["signal"].as_str().unwrap().to_owned()
            })
            .collect();
        over.sort_unstable();
        assert_eq!(over, ALL);
        assert!(run.received.spans.len() < 40);
        assert!(!run.received.logs.is_empty() && !run.received.metrics.is_empty());
    }
}
