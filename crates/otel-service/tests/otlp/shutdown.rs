//! The end of a process: shutdown with a misbehaving collector, flushes, and exits without a shutdown.

use std::time::{Duration, Instant};

use otel_service::testing::InMemory;
use otel_service::{Span, Telemetry};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::outages::{ALL, stop_without_delivery, warned_signals};
use crate::scripted::{self, Reply, Seen};
use crate::support::{self, Behaviour, Collector, Problem};

/// Shuts down from within a current-thread runtime while the collector responds with `reply`.
fn shutdown_keeps_its_deadline(test: &str, reply: Reply) -> Option<Seen> {
    let run = scripted::run(
        test,
        move |_, _| reply,
        &[],
        || {
            let deadline = Duration::from_millis(700);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let telemetry = otel_service::init(support::SERVICE).unwrap();
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
    assert!(warned_signals(&run.stdout).len() <= ALL.len(), "{}", run.stdout);
    Some(seen)
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_is_silent() {
    shutdown_keeps_its_deadline(
        "shutdown::shutdown_keeps_its_deadline_when_the_collector_is_silent",
        Reply::Silence,
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_hangs_up() {
    shutdown_keeps_its_deadline(
        "shutdown::shutdown_keeps_its_deadline_when_the_collector_hangs_up",
        Reply::Hangup,
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_fails() {
    shutdown_keeps_its_deadline(
        "shutdown::shutdown_keeps_its_deadline_when_the_collector_fails",
        Reply::Status(500),
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_collector_is_unavailable() {
    shutdown_keeps_its_deadline(
        "shutdown::shutdown_keeps_its_deadline_when_the_collector_is_unavailable",
        Reply::Status(503),
    );
}

#[test]
fn shutdown_keeps_its_deadline_when_the_response_is_malformed() {
    shutdown_keeps_its_deadline(
        "shutdown::shutdown_keeps_its_deadline_when_the_response_is_malformed",
        Reply::Garbage,
    );
}

#[test]
fn a_rejected_request_is_not_retried() {
    let seen = shutdown_keeps_its_deadline("shutdown::a_rejected_request_is_not_retried", Reply::Status(400));
    if let Some(seen) = seen {
        assert_eq!(seen.requests.len(), ALL.len());
    }
}

#[test]
fn shutdown_does_not_wait_for_a_long_retry_after() {
    let seen = shutdown_keeps_its_deadline(
        "shutdown::shutdown_does_not_wait_for_a_long_retry_after",
        Reply::Later(3_600),
    );
    if let Some(seen) = seen {
        assert_eq!(seen.requests.len(), ALL.len());
    }
}

/// Records a span with a log record and a measurement.
fn record_all() {
    static LAST: otel_service::Counter = otel_service::counter("ones", "{one}", "Ones.");
    support::block_on(Span::internal("one").run(async {
        LAST.add(1, &[]);
        tracing::info!("last");
        Ok::<_, Problem>(())
    }))
    .unwrap();
}

fn assert_all_arrived(received: &support::Received) {
    received.span("one");
    received.log("last");
    received.metric("ones");
}

#[test]
fn dropping_the_telemetry_delivers_everything() {
    let name = "shutdown::dropping_the_telemetry_delivers_everything";
    let run = support::run(name, Behaviour::Accepts, &[], || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        record_all();
        drop(telemetry);
    });
    if let Some(run) = run {
        assert_all_arrived(&run.received);
    }
}

#[test]
fn a_panic_that_unwinds_through_the_telemetry_is_delivered() {
    let name = "shutdown::a_panic_that_unwinds_through_the_telemetry_is_delivered";
    let run = support::run(name, Behaviour::Accepts, &[], || {
        let caught = std::panic::catch_unwind(|| {
            let _telemetry = otel_service::init(support::SERVICE).unwrap();
            record_all();
            support::block_on(Span::internal("inner").run(async {
                assert!(std::env::vars_os().next().is_none(), "of the scenario");
                Ok::<_, Problem>(())
            }))
        });
        assert!(caught.is_err());
    });
    if let Some(run) = run {
        assert_all_arrived(&run.received);
        run.received.log("panicked");
        let span = run.received.span("inner");
        assert_eq!(span.events.len(), 1);
    }
}

#[test]
fn an_exit_delivers_everything() {
    let name = "shutdown::an_exit_delivers_everything";
    if support::is_child() {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        record_all();
        std::mem::forget(telemetry);
        otel_service::exit(7);
    }
    let collector = Collector::start(Behaviour::Accepts);
    let status = support::child(name)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
    assert_all_arrived(&collector.take());
}

#[test]
fn a_flush_delivers_everything_and_the_export_continues() {
    let name = "shutdown::a_flush_delivers_everything_and_the_export_continues";
    let run = support::run(name, Behaviour::Accepts, &[], || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        record_all();
        telemetry.flush(Duration::from_secs(20)).unwrap();
        tracing::info!("flushed");
        telemetry.flush(Duration::from_secs(20)).unwrap();
        // Flushed telemetry needs neither a shutdown nor a drop.
        std::mem::forget(telemetry);
    });
    if let Some(run) = run {
        assert_all_arrived(&run.received);
        run.received.log("flushed");
    }
}

#[test]
fn a_flush_ends_at_its_deadline() {
    let name = "shutdown::a_flush_ends_at_its_deadline";
    support::run(name, Behaviour::Blackhole, &[], || {
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        record_all();
        let started = Instant::now();
        let error = telemetry.flush(Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.signals.len(), 3);
        drop(telemetry);
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "{:?}",
            started.elapsed()
        );
    });
}

#[test]
fn a_process_may_have_several_instances() {
    let name = "shutdown::a_process_may_have_several_instances";
    support::run(name, Behaviour::Accepts, &[], || {
        let global = otel_service::init(support::SERVICE).unwrap();
        let instances = [InMemory::default(), InMemory::default()].map(|memory| {
            let builder = Telemetry::builder(support::SERVICE).exporter(memory.exporter());
            let (telemetry, layer) = builder.isolated().build().unwrap();
            (memory, telemetry, tracing_subscriber::registry().with(layer))
        });
        for (index, (memory, telemetry, subscriber)) in instances.into_iter().enumerate() {
            tracing::subscriber::with_default(subscriber, || {
                tracing::info_span!("own", index).in_scope(|| tracing::info!("own"));
            });
            telemetry.shutdown(Duration::from_secs(20)).unwrap();
            assert_eq!((memory.spans().len(), memory.log_records().len()), (1, 1));
        }
        record_all();
        global.shutdown(Duration::from_secs(20)).unwrap();
    });
}
