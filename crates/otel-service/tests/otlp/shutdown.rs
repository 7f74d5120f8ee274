//! Shutdown with a collector that misbehaves.

use std::time::Duration;

use otel_service::Span;

use crate::outages::{ALL, stop_without_delivery, warned_signals};
use crate::scripted::{self, Reply, Seen};
use crate::support::{self, Problem};

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
