//! When things are sent and for how long that is tried: `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_BSP_*`, `OTEL_BLRP_*` and
//! `OTEL_METRIC_EXPORT_*`.

use std::time::{Duration, Instant};

use super::{LONG, SIGNALS, one_of_each, own};
use crate::support::{self, Behaviour, Problem, json_lines, wait_until_received};

/// Nothing is exported by itself before the end.
const RARELY: [(&str, &str); 3] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "3600000"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
];

fn rarely_but(exceptions: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    RARELY
        .into_iter()
        .filter(|(name, _)| exceptions.iter().all(|(other, _)| other != name))
        .chain(exceptions.iter().copied())
        .collect()
}

/// The exporters of the other signals are off.
fn alone(signal: &str) -> Vec<(String, String)> {
    SIGNALS
        .iter()
        .filter(|(other, _)| *other != signal)
        .map(|(other, _)| (format!("OTEL_{other}_EXPORTER"), "none".to_owned()))
        .collect()
}

/// With a collector that never answers, shutdown comes back long before its deadline.
fn give_up_early() {
    let telemetry = telemetry::init(support::SERVICE).unwrap();
    one_of_each();
    let started = Instant::now();
    assert!(!telemetry.shutdown(LONG).unwrap_err().signals.is_empty());
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn the_common_timeout_ends_every_export() {
    let name = "variables::timing::the_common_timeout_ends_every_export";
    support::run(
        name,
        Behaviour::Blackhole,
        &[("OTEL_EXPORTER_OTLP_TIMEOUT", "200")],
        give_up_early,
    );
}

#[test]
fn a_signals_own_timeout_goes_before_the_common_one() {
    let name = "variables::timing::a_signals_own_timeout_goes_before_the_common_one";
    for (signal, _) in SIGNALS {
        let mut environment = alone(signal);
        environment.push(("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), "600000".to_owned()));
        environment.push((own(signal, "TIMEOUT"), "200".to_owned()));
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if support::run(name, Behaviour::Blackhole, &environment, give_up_early).is_none() {
            return;
        }
    }
}

#[test]
fn an_export_timeout_of_batches_or_readers_ends_an_export() {
    let name = "variables::timing::an_export_timeout_of_batches_or_readers_ends_an_export";
    for (signal, variable) in [
        ("TRACES", "OTEL_BSP_EXPORT_TIMEOUT"),
        ("LOGS", "OTEL_BLRP_EXPORT_TIMEOUT"),
        ("METRICS", "OTEL_METRIC_EXPORT_TIMEOUT"),
    ] {
        let mut environment = alone(signal);
        environment.push(("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), "600000".to_owned()));
        environment.push((variable.to_owned(), "200".to_owned()));
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if support::run(name, Behaviour::Blackhole, &environment, give_up_early).is_none() {
            return;
        }
    }
}

/// Records once and waits until that has been sent before anything is shut down.
fn wait_for(path: &str, count: usize) {
    let telemetry = telemetry::init(support::SERVICE).unwrap();
    one_of_each();
    wait_until_received(path, count);
    telemetry.shutdown(LONG).unwrap();
}

#[test]
fn spans_are_sent_after_the_delay_of_their_batches() {
    let name = "variables::timing::spans_are_sent_after_the_delay_of_their_batches";
    let environment = rarely_but(&[("OTEL_BSP_SCHEDULE_DELAY", "20")]);
    support::run(name, Behaviour::Takes, &environment, || wait_for("/v1/traces", 1));
}

#[test]
fn logs_are_sent_after_the_delay_of_their_batches() {
    let name = "variables::timing::logs_are_sent_after_the_delay_of_their_batches";
    let environment = rarely_but(&[("OTEL_BLRP_SCHEDULE_DELAY", "20")]);
    support::run(name, Behaviour::Takes, &environment, || wait_for("/v1/logs", 1));
}

#[test]
fn metrics_are_sent_every_interval() {
    let name = "variables::timing::metrics_are_sent_every_interval";
    let environment = rarely_but(&[("OTEL_METRIC_EXPORT_INTERVAL", "20")]);
    support::run(name, Behaviour::Takes, &environment, || {
        wait_for("/v1/metrics", 3);
    });
}

#[test]
fn long_delays_leave_everything_to_the_end() {
    let name = "variables::timing::long_delays_leave_everything_to_the_end";
    if let Some(run) = support::run(name, Behaviour::Takes, &RARELY, super::record) {
        assert_eq!(run.received.requests, 3);
    }
}

fn ten_of_each() {
    let telemetry = telemetry::init(support::SERVICE).unwrap();
    for _ in 0..10 {
        one_of_each();
    }
    telemetry.shutdown(LONG).unwrap();
}

#[test]
fn batches_are_as_large_as_the_variables_say() {
    let name = "variables::timing::batches_are_as_large_as_the_variables_say";
    let environment = rarely_but(&[
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "3"),
    ]);
    if let Some(run) = support::run(name, Behaviour::Takes, &environment, ten_of_each) {
        for (path, size) in [("/v1/traces", 4), ("/v1/logs", 3)] {
            let batches = run.received.batches.iter().filter(|(of, _)| of == path);
            let sizes: Vec<usize> = batches.map(|(_, size)| *size).collect();
            assert_eq!(sizes.iter().sum::<usize>(), 10, "{path}: {sizes:?}");
            assert_eq!(sizes.iter().max(), Some(&size), "{path}: {sizes:?}");
        }
    }
}

#[test]
fn what_does_not_fit_into_a_queue_is_dropped() {
    let name = "variables::timing::what_does_not_fit_into_a_queue_is_dropped";
    let environment = rarely_but(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", "5"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "5"),
        // The first batch is under way for ever.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
    ]);
    let scenario = || {
        let telemetry = telemetry::init(support::SERVICE).unwrap();
        support::block_on(async {
            for number in 0..200 {
                telemetry::Span::internal("work")
                    .run(async { Ok::<_, Problem>(()) })
                    .await
                    .unwrap();
                tracing::info!(number, "working");
            }
        });
        telemetry.shutdown(Duration::from_millis(200)).unwrap_err();
    };
    if let Some(run) = support::run(name, Behaviour::Blackhole, &environment, scenario) {
        let lines = json_lines(&run.stdout);
        let dropping: Vec<_> = lines
            .iter()
            .filter(|line| line["level"] == "WARN" && line["message"] != "working")
            .collect();
        assert!(!dropping.is_empty(), "{}", run.stdout);
    }
}
