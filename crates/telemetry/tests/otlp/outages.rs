//! A collector that is down, silent, broken or overloaded costs the service nothing but the telemetry.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use telemetry::Span;

use crate::scripted::{self, Answer, Seen};
use crate::support::{self, Behaviour, Problem, json_lines, value};

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

/// Shuts down within `deadline` with nothing delivered.
fn stop_without_delivery(telemetry: telemetry::Telemetry, deadline: Duration) {
    let started = Instant::now();
    let mut error = telemetry.shutdown(deadline).unwrap_err();
    let took = started.elapsed();
    assert!(took < deadline + Duration::from_millis(500), "took {took:?}");
    error.signals.sort_unstable();
    assert_eq!(error.signals, ALL);
}

const OFTEN: [(&str, &str); 3] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "10"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "10"),
];

/// The warnings of the export thread by signal; there are no others.
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

/// The one line of `stdout` with this message about a signal.
fn told(stdout: &str, signal: &str, message: &str) -> serde_json::Value {
    let mut lines = json_lines(stdout)
        .into_iter()
        .filter(|line| line["fields"]["signal"] == signal)
        .filter(|line| line["message"].as_str().unwrap().contains(message));
    let line = lines.next().unwrap_or_else(|| panic!("no {message}: {stdout}"));
    assert_eq!(lines.next(), None, "more than once");
    line
}

/// A service on a current-thread runtime that shuts down from inside of it, while the collector answers as it does.
fn shutdown_keeps_its_deadline(test: &str, answer: Answer) -> Option<Seen> {
    let run = scripted::run(
        test,
        move |_, _| answer,
        &[],
        || {
            let deadline = Duration::from_millis(700);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let telemetry = telemetry::init(support::SERVICE).unwrap();
                let work = async {
                    tracing::info!("working");
                    Ok::<_, Problem>(())
                };
                Span::internal("work").run(work).await.unwrap();
                stop_without_delivery(telemetry, deadline);
            });
        },
    );
    let (seen, run) = run?;
    assert!(complaints(&run.stdout).len() <= ALL.len(), "{}", run.stdout);
    Some(seen)
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_is_silent() {
    shutdown_keeps_its_deadline(
        "outages::shutdown_keeps_its_deadline_when_the_collector_is_silent",
        Answer::Silence,
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_hangs_up() {
    shutdown_keeps_its_deadline(
        "outages::shutdown_keeps_its_deadline_when_the_collector_hangs_up",
        Answer::Hangup,
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_fails() {
    shutdown_keeps_its_deadline(
        "outages::shutdown_keeps_its_deadline_when_the_collector_fails",
        Answer::Status(500),
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_is_unavailable() {
    shutdown_keeps_its_deadline(
        "outages::shutdown_keeps_its_deadline_when_the_collector_is_unavailable",
        Answer::Status(503),
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_answers_garbage() {
    shutdown_keeps_its_deadline(
        "outages::shutdown_keeps_its_deadline_when_the_collector_answers_garbage",
        Answer::Garbage,
    );
}

#[test]
fn what_the_collector_refuses_is_not_sent_again() {
    let seen = shutdown_keeps_its_deadline(
        "outages::what_the_collector_refuses_is_not_sent_again",
        Answer::Status(400),
    );
    if let Some(seen) = seen {
        assert_eq!(seen.requests.len(), ALL.len());
    }
}

#[test]
fn shutdown_does_not_wait_for_a_collector_that_asks_for_an_hour() {
    let seen = shutdown_keeps_its_deadline(
        "outages::shutdown_does_not_wait_for_a_collector_that_asks_for_an_hour",
        Answer::Later(3_600),
    );
    if let Some(seen) = seen {
        assert_eq!(seen.requests.len(), ALL.len());
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_still_a_success() {
    let test = "outages::an_answer_that_cannot_be_read_is_still_a_success";
    let run = scripted::run(
        test,
        |_, _| Answer::GarbageBody,
        &[],
        || {
            work(2).shutdown(Duration::from_secs(10)).unwrap();
        },
    );
    if let Some((_, run)) = run {
        assert_eq!(complaints(&run.stdout), Vec::<String>::new());
    }
}

#[test]
fn a_collector_that_asks_for_time_gets_it_and_nothing_is_lost() {
    let test = "outages::a_collector_that_asks_for_time_gets_it_and_nothing_is_lost";
    let script = |_: &str, n| match n {
        0 => Answer::Later(1),
        _ => Answer::Takes,
    };
    let run = scripted::run(test, script, &[], || {
        work(2).shutdown(Duration::from_secs(10)).unwrap();
    });
    if let Some((seen, run)) = run {
        for signal in ALL {
            let times: Vec<Instant> = seen.to(&format!("/v1/{signal}")).map(|asked| asked.at).collect();
            assert_eq!(times.len(), 2, "{signal}");
            assert!(times[1] - times[0] >= Duration::from_secs(1), "{signal}");
        }
        assert_eq!((seen.spans().len(), seen.logs().len()), (2, 2));
        assert_eq!(complaints(&run.stdout), Vec::<String>::new());
    }
}

#[test]
fn a_collector_that_asks_for_more_time_than_there_is_is_left_alone_that_long() {
    let test = "outages::a_collector_that_asks_for_more_time_than_there_is_is_left_alone_that_long";
    let script = |_: &str, n| match n {
        0 => Answer::Later(1),
        _ => Answer::Takes,
    };
    let environment = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let run = scripted::run(test, script, &environment, || {
        work(4).shutdown(Duration::from_secs(10)).unwrap();
    });
    if let Some((seen, run)) = run {
        let times: Vec<Instant> = seen.to("/v1/traces").map(|asked| asked.at).collect();
        assert!(times[1] - times[0] >= Duration::from_secs(1));
        // The first batch could not wait; the others waited in the queue.
        assert_eq!(seen.spans().len(), 3);
        assert_eq!(complaints(&run.stdout), ["traces"]);
        assert_eq!(
            told(&run.stdout, "traces", "delivered again")["fields"]["lost"],
            1
        );
    }
}

#[test]
fn a_collector_that_is_down_is_reported_once() {
    let name = "outages::a_collector_that_is_down_is_reported_once";
    // Retries end well before the next batch is due.
    let environment = [OFTEN[0], OFTEN[1], OFTEN[2], ("OTEL_EXPORTER_OTLP_TIMEOUT", "50")];
    let scenario = || stop_without_delivery(work(40), Duration::from_secs(10));
    if let Some(run) = support::run(name, Behaviour::Down, &environment, scenario) {
        assert_eq!(complaints(&run.stdout), ALL);
    }
}

#[test]
fn a_collector_that_fails_is_reported_once() {
    let name = "outages::a_collector_that_fails_is_reported_once";
    let scenario = || stop_without_delivery(work(40), Duration::from_secs(10));
    if let Some(run) = support::run(name, Behaviour::Fails, &OFTEN, scenario) {
        assert!(run.received.requests > 6, "{}", run.received.requests);
        assert_eq!(complaints(&run.stdout), ALL);
    }
}

#[test]
fn an_outage_that_ends_is_reported_with_what_was_lost() {
    let name = "outages::an_outage_that_ends_is_reported_with_what_was_lost";
    let scenario = || work(40).shutdown(Duration::from_secs(10)).unwrap();
    if let Some(run) = support::run(name, Behaviour::FailsAtFirst, &OFTEN, scenario) {
        assert_eq!(complaints(&run.stdout), ALL);
        for signal in ALL {
            let line = told(&run.stdout, signal, "telemetry is delivered again");
            assert!(line["fields"]["lost"].as_u64().unwrap() >= 1, "{line}");
        }
        let lost = &told(&run.stdout, "traces", "delivered again")["fields"]["lost"];
        assert_eq!(run.received.spans.len() as u64, 40 - lost.as_u64().unwrap());
        assert!(!run.received.logs.is_empty());
        run.received.metric("work");
    }
}

/// The value of a counter's point with this `error.type`.
fn counted(seen: &Seen, name: &str, error_type: Option<&str>) -> Option<i64> {
    let Some(metric::Data::Sum(sum)) = seen.metric(name).data else {
        panic!("{name} is no sum");
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
fn a_flood_during_an_outage_leaves_requests_alone_and_is_counted_and_told_once() {
    const SPANS: usize = 20_000;
    let name = "outages::a_flood_during_an_outage_leaves_requests_alone_and_is_counted_and_told_once";
    // The collector is silent until the first export of spans is given up, then well.
    let script = |path: &str, n| match (path, n) {
        ("/v1/traces", 0) => Answer::Silence,
        _ => Answer::Takes,
    };
    let environment = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
    ];
    let run = scripted::run(name, script, &environment, || {
        let telemetry = telemetry::init(support::SERVICE).unwrap();
        let slowest = support::block_on(async {
            let mut slowest = Duration::ZERO;
            for _ in 0..SPANS {
                let started = Instant::now();
                let work = async { Ok::<_, Problem>(()) };
                Span::internal("work").run(work).await.unwrap();
                slowest = slowest.max(started.elapsed());
            }
            slowest
        });
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
        // The collector is well again, and a while has passed without a drop.
        scripted::wait_for("/v1/traces", 2, Duration::from_secs(20));
        telemetry.shutdown(Duration::from_secs(20)).unwrap();
    });
    if let Some((seen, run)) = run {
        assert_eq!(
            told(&run.stdout, "traces", "does not fit")["fields"]["capacity"],
            64
        );
        let dropped = told(&run.stdout, "traces", "room again")["fields"]["dropped"]
            .as_i64()
            .unwrap();
        let processed = "otel.sdk.processor.span.processed";
        assert_eq!(counted(&seen, processed, Some("queue_full")), Some(dropped));
        let lost = told(&run.stdout, "traces", "delivered again")["fields"]["lost"]
            .as_i64()
            .unwrap();
        let exported = "otel.sdk.exporter.span.exported";
        assert_eq!(counted(&seen, exported, Some("timeout")), Some(lost));
        let delivered = seen.spans().len() as i64;
        assert_eq!(dropped + lost + delivered, SPANS as i64);
        assert!(dropped > 10_000, "{dropped}");
    }
}

#[test]
fn a_gauge_that_hangs_costs_metrics_alone() {
    let name = "outages::a_gauge_that_hangs_costs_metrics_alone";
    let environment = [
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "100"),
    ];
    let run = scripted::run(
        name,
        |_, _| Answer::Takes,
        &environment,
        || {
            let telemetry = telemetry::init(support::SERVICE).unwrap();
            let (reached, is_reached) = std::sync::mpsc::channel();
            telemetry::observe_gauge("stuck", "1", "Hangs.", move || {
                let _ = reached.send(());
                loop {
                    std::thread::park();
                }
            });
            is_reached.recv_timeout(Duration::from_secs(20)).unwrap();
            // An instrument made meanwhile keeps nobody waiting.
            static LATE: telemetry::Counter = telemetry::counter("late", "1", "Made late.");
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
        assert_eq!(complaints(&run.stdout), ["metrics"]);
        let line = told(&run.stdout, "metrics", "cannot be delivered");
        assert!(line["fields"]["error"].as_str().unwrap().contains("callback"));
    }
}

#[test]
fn a_gauge_that_panics_costs_itself_alone() {
    let name = "outages::a_gauge_that_panics_costs_itself_alone";
    let environment = [("OTEL_METRIC_EXPORT_INTERVAL", "20")];
    let run = scripted::run(
        name,
        |_, _| Answer::Takes,
        &environment,
        || {
            let telemetry = telemetry::init(support::SERVICE).unwrap();
            telemetry::observe_gauge("broken", "1", "Panics.", || panic!("of the scenario"));
            telemetry::observe_gauge("whole", "1", "Does not.", || vec![(7.0, Vec::new())]);
            scripted::wait_for("/v1/metrics", 3, Duration::from_secs(20));
            telemetry.shutdown(Duration::from_secs(10)).unwrap();
        },
    );
    if let Some((seen, run)) = run {
        seen.metric("whole");
        let line = told(&run.stdout, "metrics", "the reading of a gauge panicked");
        assert_eq!(line["fields"]["gauge"], "broken");
    }
}

/// The threads of this process that export.
fn export_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|thread| {
            let name = std::fs::read_to_string(thread.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| name.trim() == "telemetry")
        })
        .count()
}

/// Works and shuts down with `threads` export threads meanwhile and none afterwards.
fn has_threads(test: &str, environment: &[(&str, &str)], threads: usize) -> Option<Seen> {
    let run = scripted::run(
        test,
        |_, _| Answer::Takes,
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
fn one_thread_exports() {
    let seen = has_threads("outages::one_thread_exports", &[], 1);
    if let Some(seen) = seen {
        assert!(seen.connections > 0);
    }
}

#[test]
fn a_disabled_sdk_has_no_thread_and_no_connection() {
    let test = "outages::a_disabled_sdk_has_no_thread_and_no_connection";
    if let Some(seen) = has_threads(test, &[("OTEL_SDK_DISABLED", "true")], 0) {
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
    let test = "outages::without_exporters_there_is_no_thread_and_no_connection";
    if let Some(seen) = has_threads(test, &environment, 0) {
        assert_eq!((seen.connections, seen.requests.len()), (0, 0));
    }
}

#[test]
fn the_pipeline_measures_itself() {
    let test = "outages::the_pipeline_measures_itself";
    let environment = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "200"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
    ];
    let run = scripted::run(
        test,
        |_, _| Answer::Takes,
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
        // What is flushed at the end may or may not be in the last metrics.
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
        ] {
            let Some(metric::Data::Sum(sum)) = seen.metric(name).data else {
                panic!("{name} is no sum");
            };
            assert!(!sum.is_monotonic, "{name}");
            let Some(number_data_point::Value::AsInt(number)) = sum.data_points[0].value else {
                panic!("{name} is no integer");
            };
            assert!(expected.contains(&number), "{name} is {number}");
        }
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
        panic!("{name} is no sum");
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
