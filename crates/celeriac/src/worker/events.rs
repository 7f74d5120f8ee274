//! Task events for monitors, kept in a bounded buffer and broadcast in batches. Tasks never wait for them,
//! and while events are disabled a task only reads a flag.

use std::{iter, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::shared::Shared;
use crate::{
    back_off::BackOff,
    broker::BrokerError,
    event::{self, EXCHANGE, Event, TASK_BATCH},
    exception::Exception,
    failure_log::FailureLog,
    log::warn,
    message::Message,
    repr,
    task::TaskOutcome,
};

/// Maximum time that an event stays in the buffer; a full batch is broadcast immediately.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum delay before a broadcast is retried.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Minimum time between two warnings about dropped events.
const DROPPED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Broadcasts the buffered events while the worker runs.
pub(super) async fn broadcast(shared: Arc<Shared>) {
    let mut failures = FailureLog::new("sending task events");
    let mut back_off = BackOff::new(FLUSH_INTERVAL, MAX_RETRY_DELAY);
    let mut last_log = None::<Instant>;
    loop {
        tokio::select! {
            biased;
            () = sleep(FLUSH_INTERVAL) => {}
            () = shared.events.batch_ready.notified() => {}
        }
        match flush(&shared).await {
            Ok(()) => {
                failures.worked();
                back_off.reset();
            }
            Err(error) => {
                failures.failed(&error);
                // Without a delay, a full buffer would trigger the next attempt immediately.
                back_off.wait().await;
            }
        }
        if last_log.is_none_or(|at| at.elapsed() > DROPPED_LOG_INTERVAL) {
            let dropped = shared.events.take_dropped();
            if dropped > 0 {
                warn!(
                    queue.dropped = dropped,
                    "dropped task events: they are created faster than they can be sent"
                );
                last_log = Some(Instant::now());
            }
        }
    }
}

/// Broadcasts the events in the buffer.
pub(super) async fn flush(shared: &Shared) -> Result<(), BrokerError> {
    loop {
        let batch = shared.events.take();
        if batch.is_empty() {
            return Ok(());
        }
        let text = Event::encode_batch(&shared.hostname, &batch);
        if let Err(error) = shared.broker.broadcast(EXCHANGE, TASK_BATCH, text).await {
            shared.events.put_back(batch);
            return Err(error);
        }
    }
}

/// Emits `task-received`.
pub(super) fn received(shared: &Shared, message: &Message) {
    if shared.events.enabled() {
        let fields = event::task_fields(message);
        emit(shared, "task-received", &message.headers.id, fields);
    }
}

/// Emits the event for a finished task, which ran for `runtime` seconds; `signal` is set if termination was
/// ordered.
pub(super) fn ended(shared: &Shared, id: &str, outcome: &TaskOutcome, runtime: f64, signal: Option<i32>) {
    if !shared.events.enabled() {
        return;
    }
    let raised = |exception: &Exception, traceback: Option<String>| {
        let message = repr::value(&json!(exception.message));
        let exception = format!("{}({message})", exception.type_name);
        vec![("exception", json!(exception)), ("traceback", json!(traceback))]
    };
    let (kind, fields) = match outcome {
        TaskOutcome::Success(value) => {
            let fields = vec![("result", json!(repr::value(value))), ("runtime", json!(runtime))];
            ("task-succeeded", fields)
        }
        TaskOutcome::Retry { cause, .. } => ("task-retried", raised(cause, Some(cause.traceback()))),
        TaskOutcome::Failure(exception) => ("task-failed", raised(exception, Some(exception.traceback()))),
        TaskOutcome::Aborted(exception) => ("task-failed", raised(exception, None)),
        TaskOutcome::Rejected { requeue } => ("task-rejected", vec![("requeue", json!(requeue))]),
        TaskOutcome::Ignored => return,
        TaskOutcome::Revoked(reason) => {
            let terminated = *reason == "terminated";
            let fields = vec![
                ("terminated", json!(terminated)),
                ("signum", json!(signal.filter(|_| terminated))),
                ("expired", json!(*reason == "expired")),
            ];
            ("task-revoked", fields)
        }
    };
    emit(shared, kind, id, fields);
}

/// Emits an event of the task with this id, unless events are disabled.
pub(super) fn emit(
    shared: &Shared,
    kind: &str,
    id: &str,
    details: impl IntoIterator<Item = (&'static str, Value)>,
) {
    if !shared.events.enabled() {
        return;
    }
    let clock = shared.clock.tick();
    let details = iter::once(("uuid", json!(id))).chain(details);
    let event = Event::new(kind, &shared.hostname, clock, details);
    shared.events.add(event);
}
