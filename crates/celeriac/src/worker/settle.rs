//! Settles deliveries: acknowledges a delivery together with its result, sends its retry, or moves it to the
//! dead-letter list. Callbacks, chains and chords are left to [`follow`].

use std::{pin::pin, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    confirm::until_confirmed,
    follow::{self, FollowUps},
    inflight::Entry,
    shared::Shared,
};
use crate::{
    broker::{Delivery, Publication, Settlement, SettlementStatus},
    exception::Exception,
    log::{debug, error, info, warn},
    message::{Embed, Headers, Message, Poison},
    observer::{SpanHandle, observed},
    repr,
    result::{ResultMeta, Status},
    retry::Retry,
    system,
    task::TaskOutcome,
    time,
};

/// A run that has ended and is not settled yet.
pub(super) struct FinishedRun {
    pub(super) outcome: TaskOutcome,
    pub(super) next: Next,
    /// Reason that the task gave for rejecting its message.
    pub(super) reason: String,
    /// Results of the tasks that the task has sent, in Celery's format.
    pub(super) children: Vec<Value>,
    pub(super) ignore_result: bool,
    /// Whether the delivery was acknowledged before the task started.
    pub(super) acked_early: bool,
    /// Headers with the trace context of the run; empty without follow-up tasks.
    pub(super) trace: Map<String, Value>,
    /// Span of the run, the parent of the settlement's broker commands.
    pub(super) span: SpanHandle,
}

/// Tasks that a run asked for, apart from those that its message contains.
pub(super) enum Next {
    Nothing,
    /// Another attempt.
    Retry(Box<Retry>),
    Follow(Box<FollowUps>),
}

/// Settles a delivery as the last step of its run.
pub(super) async fn settle(shared: &Shared, delivery: &Delivery, message: &Message, run: Box<FinishedRun>) {
    let span = run.span.clone();
    let settled = pin!(settle_run(shared, delivery, message, run));
    observed(settled, |poll| shared.observer.in_scope(&span, poll)).await;
}

async fn settle_run(shared: &Shared, delivery: &Delivery, message: &Message, run: Box<FinishedRun>) {
    let headers = &message.headers;
    let now = system::now();
    let mut retry: Option<Box<PendingRetry>> = None;
    // Whether the next attempt is sent to another queue.
    let mut moved = false;
    let dead_letter = match &run.outcome {
        TaskOutcome::Failure(exception) | TaskOutcome::Aborted(exception) if shared.keep_failed => {
            Some(format!("the task failed: {exception}"))
        }
        _ => None,
    };
    let mut meta = match run.outcome {
        TaskOutcome::Success(value) => ResultMeta::success(headers, value, now),
        TaskOutcome::Failure(exception) => ResultMeta::failure(headers, &exception, now),
        TaskOutcome::Aborted(exception) => ResultMeta::aborted(headers, &exception, now),
        TaskOutcome::Revoked(reason) => ResultMeta::revoked(headers, reason, now),
        TaskOutcome::Retry { cause, countdown } => {
            // Decoded again, because the run has consumed the arguments.
            let message = delivery
                .message()
                .expect("the message was decoded to run this attempt");
            let options = match run.next {
                Next::Retry(options) => options,
                _ => Box::new(Retry::new(cause.clone())),
            };
            moved = options.queue.is_some();
            let message = next_attempt(message, *options, time::later(now, countdown), now);
            let meta = ResultMeta::retry(headers, &cause);
            retry = Some(Box::new(PendingRetry {
                message,
                cause,
                countdown,
            }));
            meta
        }
        TaskOutcome::Ignored | TaskOutcome::Rejected { .. } => {
            return Box::pin(settle_without_result(shared, delivery, message, &run)).await;
        }
    };
    if let (false, Value::Array(children)) = (run.children.is_empty(), &mut meta.children) {
        children.splice(..0, run.children);
    }
    let keep = !run.ignore_result;
    let meta = extended(shared, delivery, meta);
    // The rare cases are boxed, which keeps the future of every task small.
    if retry.is_none() && follow::has_follow_up(&message.embed) {
        let follow_ups = FollowUps::OfResult {
            meta: Box::new(meta),
            keep,
            dead_letter,
        };
        let settled = follow::settle(shared, delivery, message, &follow_ups, &run.trace);
        return Box::pin(settled).await;
    }
    if run.acked_early || moved || dead_letter.is_some() {
        // The retry goes to the queue that the message was received from, even if the message has another
        // routing key.
        if let Some(retry) = retry.as_mut().filter(|_| !moved) {
            retry.message.set_queue(delivery.queue.clone());
        }
        let settlement = Settlement {
            results: keep.then_some(meta).into_iter().collect(),
            publication: Publication {
                messages: retry.iter().map(|retry| retry.message.clone()).collect(),
                ..Publication::default()
            },
            dead_letter,
            ..Settlement::default()
        };
        let settle = until_confirmed(&headers.id, || shared.broker.settle(delivery, &settlement));
        let settled = Box::pin(settle).await;
        report(
            headers,
            settled.map(|status| status == SettlementStatus::Applied),
            retry,
        );
        return;
    }
    let result = keep.then_some(&meta);
    let settled = match &retry {
        None => until_confirmed(&headers.id, || shared.broker.ack(delivery, result)).await,
        Some(retry) => {
            let replace = || shared.broker.replace(delivery, retry.message.clone(), result);
            Box::pin(until_confirmed(&headers.id, replace)).await
        }
    };
    report(headers, settled, retry);
}

/// Returns the result with the call of its task, if the worker stores extended results.
pub(super) fn extended(shared: &Shared, delivery: &Delivery, mut meta: ResultMeta) -> ResultMeta {
    meta.compression = shared.result_compression;
    if !shared.result_extended {
        return meta;
    }
    match delivery.message() {
        Ok(message) => meta.extended(&message, &shared.hostname),
        Err(_) => meta,
    }
}

/// A retry that is sent with the settlement.
struct PendingRetry {
    message: Message,
    cause: Exception,
    countdown: Duration,
}

/// Logs a retry that was sent, and a settlement that had no effect. `settled` is `None` if the broker
/// rejected the settlement, which is logged already.
fn report(headers: &Headers, settled: Option<bool>, retry: Option<Box<PendingRetry>>) {
    let (task, task_id, retries) = (&headers.task, headers.id.as_str(), headers.retries);
    match (settled, retry) {
        (Some(true), Some(retry)) => {
            let (error, cause) = (&retry.cause.type_name, &retry.cause.message);
            let seconds = retry.countdown.as_secs_f64();
            warn!(
                celery.task_name = task,
                messaging.message.id = task_id,
                celery.retries = retries,
                error.type = error,
                exception.type = error,
                exception.message = cause,
                retry.delay = seconds,
                "task will be retried"
            );
        }
        // The reply to the first attempt to settle the task may have been lost.
        (Some(false), _) => debug!(
            celery.task_name = task,
            messaging.message.id = task_id,
            celery.retries = retries,
            "the task is already settled, or another worker has taken it over"
        ),
        (Some(true), None) | (None, _) => {}
    }
}

/// Returns the message of the next attempt.
fn next_attempt(message: Message, options: Retry, eta: Timestamp, now: Timestamp) -> Message {
    let mut next = message.retry(eta);
    if let Some(args) = options.args {
        next.headers.argsrepr = Some(repr::tuple(&args));
        next.args = args;
    }
    if let Some(kwargs) = options.kwargs {
        next.headers.kwargsrepr = Some(repr::dict(&kwargs));
        next.kwargs = kwargs;
    }
    if let Some(expires) = options.expires {
        next.headers.expires = Some(expires);
        next.properties.expiration = Some(time::milliseconds_until(expires, now).to_string());
    }
    if let Some(priority) = options.priority {
        next.properties.priority = priority;
    }
    if let Some(queue) = options.queue {
        next.set_queue(queue);
    }
    next
}

/// Settles a run that ended with neither a result nor another attempt.
async fn settle_without_result(shared: &Shared, delivery: &Delivery, message: &Message, run: &FinishedRun) {
    let id = &message.headers.id;
    if let Next::Follow(follow_ups) = &run.next {
        return follow::settle(shared, delivery, message, follow_ups, &run.trace).await;
    }
    match run.outcome {
        _ if run.acked_early => {
            let nothing = Settlement::default();
            until_confirmed(id, || shared.broker.settle(delivery, &nothing)).await;
        }
        TaskOutcome::Rejected { requeue: true } => {
            until_confirmed(id, || shared.broker.restore(delivery)).await;
        }
        TaskOutcome::Rejected { requeue: false } => {
            let reason = format!("the task rejected its message: {}", run.reason);
            until_confirmed(id, || shared.broker.bury(delivery, &reason, None)).await;
        }
        _ => {
            until_confirmed(id, || shared.broker.ack(delivery, None)).await;
        }
    }
}

/// Acknowledges a redelivered message whose task has already ended. Returns false if the task must run.
///
/// A part of a chord that has ended may not have been counted yet: it is recorded with its stored result.
pub(super) async fn skip_finished(shared: &Shared, entry: &Entry, message: &Message) -> bool {
    let headers = &message.headers;
    if !shared.skip_finished {
        return false;
    }
    let stored = until_confirmed(&headers.id, || {
        shared.broker.statuses(std::slice::from_ref(&headers.id))
    })
    .await;
    let status = stored.and_then(|statuses| statuses.into_iter().next().flatten());
    if !status.as_ref().is_some_and(Status::is_final) {
        return false;
    }
    let (task, task_id) = (&headers.task, headers.id.as_str());
    let status = status.as_ref().map(Status::as_str);
    if !entry.begin_settling() {
        return true;
    }
    info!(
        celery.task_name = task,
        messaging.message.id = task_id,
        celery.state = status,
        "acknowledging a redelivered task that has already ended"
    );
    if message.embed.chord.is_null() {
        until_confirmed(&headers.id, || shared.broker.ack(&entry.delivery, None)).await;
        return true;
    }
    let result = until_confirmed(&headers.id, || shared.broker.result(&headers.id)).await;
    if let Some(meta) = result.flatten() {
        let part = Message {
            headers: headers.clone(),
            embed: Embed {
                chord: message.embed.chord.clone(),
                ..Embed::default()
            },
            ..message.clone()
        };
        let follow_ups = FollowUps::OfResult {
            meta: Box::new(meta),
            keep: false,
            dead_letter: None,
        };
        follow::settle(shared, &entry.delivery, &part, &follow_ups, &Map::new()).await;
    }
    true
}

/// Acknowledges a delivery before its task starts. Returns false if another worker holds the delivery or the
/// broker keeps rejecting the acknowledgement.
pub(super) async fn ack_early(shared: &Shared, entry: &Entry) -> bool {
    if !entry.begin_settling() {
        return false;
    }
    let acknowledged = until_confirmed(&entry.id, || shared.broker.begin(&entry.delivery)).await;
    let held = acknowledged == Some(true);
    if held {
        entry.set_acknowledged();
    }
    held
}

/// Moves a message that cannot be run to the dead-letter list, and fails its task if it has an id.
pub(super) async fn bury(shared: &Shared, delivery: &Delivery, poison: &Poison) {
    let reason = poison.to_string();
    error!(
        messaging.destination.name = delivery.queue,
        celery.task_name = poison.task,
        messaging.message.id = poison.task_id.as_deref(),
        reason,
        messaging.message.envelope.size = delivery.raw.len(),
        "moving a message that cannot be run to the dead-letter list"
    );
    let meta = poison.task_id.clone().map(|id| {
        let headers = Headers::new(poison.task.clone().unwrap_or_default(), id);
        let exception = Exception::new("InvalidTaskError", reason.clone()).module("celery.exceptions");
        ResultMeta::failure(&headers, &exception, system::now())
    });
    let id = poison.task_id.as_deref().unwrap_or_default();
    until_confirmed(id, || shared.broker.bury(delivery, &reason, meta.as_ref())).await;
}
