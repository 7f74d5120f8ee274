//! Tells the broker how a delivery ended, until the broker has confirmed: a finished task must not run again
//! only because Redis was away when it finished. All steps are safe to repeat.

use std::{pin::pin, time::Duration};

use serde_json::{Map, Value};

use super::{Shared, follow, inflight::Entry};
use crate::{
    backoff::Backoff,
    broker::{BrokerError, Delivery, Publication, Settlement},
    log::error,
    message::{Headers, Message, Poison},
    observer::{Origin, observed},
    result::ResultMeta,
    signature::later,
    streak::Streak,
    system,
    task::{Exception, TaskOutcome},
};

/// Attempts at a server that answers with an error; one that is away is tried for ever.
const MOST_REFUSALS: u32 = 10;

/// How a run ended.
pub(super) struct End {
    pub outcome: TaskOutcome,
    pub ignore_result: bool,
    /// It was acknowledged before it began.
    pub early: bool,
    /// Headers with the trace context of the run, if anything follows from it.
    pub trace: Map<String, Value>,
    /// The run, which telling the broker of its end belongs to.
    pub origin: Origin,
}

/// Tells the broker how a delivery ended, as the last thing that its run does.
pub(super) async fn settle(shared: &Shared, delivery: &Delivery, message: &Message, end: End) {
    let origin = end.origin.clone();
    let told = pin!(tell(shared, delivery, message, end));
    observed(told, |poll| shared.observer.during(&origin, poll)).await;
}

async fn tell(shared: &Shared, delivery: &Delivery, message: &Message, end: End) {
    let End {
        outcome,
        ignore_result,
        early,
        trace,
        origin: _,
    } = end;
    let headers = &message.headers;
    let now = system::now();
    let mut next = None;
    let meta = match outcome {
        TaskOutcome::Success(value) => ResultMeta::success(headers, value, now),
        TaskOutcome::Failure(exception) => ResultMeta::failure(headers, &exception, now),
        TaskOutcome::Rejected(exception, arguments) => {
            ResultMeta::rejected(headers, &exception, &arguments, now)
        }
        TaskOutcome::Revoked(reason) => ResultMeta::revoked(headers, reason, now),
        TaskOutcome::Retry { cause, countdown } => {
            // The attempt has used up its arguments; the message still has them.
            let message = delivery.message().expect("it was decoded to run this attempt");
            next = Some(Box::new(message.retry(later(now, countdown))));
            ResultMeta::retry(headers, &cause)
        }
    };
    // What most tasks do not need is in boxes: their futures stay small, and they are moved around.
    if next.is_none() && follow::follows(&message.embed) {
        return Box::pin(follow::settle(
            shared,
            delivery,
            message,
            meta,
            !ignore_result,
            &trace,
        ))
        .await;
    }
    if early {
        // It stays in the queue it was taken from, whatever it was sent with.
        if let Some(next) = &mut next {
            next.properties
                .delivery_info
                .routing_key
                .clone_from(&delivery.queue);
        }
        let settlement = Settlement {
            results: (!ignore_result).then_some(meta).into_iter().collect(),
            publication: Publication {
                messages: next.into_iter().map(|next| *next).collect(),
                ..Publication::default()
            },
            chords: Vec::new(),
        };
        let settled = until_confirmed(&headers.id, || shared.broker.settle(delivery, &settlement));
        Box::pin(settled).await;
        return;
    }
    let result = (!ignore_result).then_some(&meta);
    match next {
        None => {
            until_confirmed(&headers.id, || shared.broker.ack(delivery, result)).await;
        }
        Some(next) => {
            let replace = || shared.broker.replace(delivery, Message::clone(&next), result);
            Box::pin(until_confirmed(&headers.id, replace)).await;
        }
    }
}

/// Acknowledges a delivery before its task begins. False when another worker has it, or the broker refuses for good.
pub(super) async fn begin(shared: &Shared, entry: &Entry) -> bool {
    let begun = until_confirmed(&entry.id, || shared.broker.begin(&entry.delivery)).await;
    if begun == Some(true) {
        entry.acknowledged();
    }
    begun == Some(true)
}

/// Puts a message that cannot be run into the dead-letter list, and fails its task where it names one.
pub(super) async fn bury(shared: &Shared, delivery: &Delivery, poison: &Poison) {
    let reason = poison.to_string();
    error!(
        queue = delivery.queue,
        task = poison.task,
        task_id = poison.task_id,
        reason,
        bytes = delivery.raw.len(),
        "a message that cannot be run goes to the dead-letter list"
    );
    let meta = poison.task_id.clone().map(|id| {
        let headers = Headers::new(poison.task.clone().unwrap_or_default(), id);
        let exception = Exception {
            type_name: "InvalidTaskError".to_owned(),
            module: "celery.exceptions".to_owned(),
            message: reason.clone(),
        };
        ResultMeta::failure(&headers, &exception, system::now())
    });
    let id = poison.task_id.as_deref().unwrap_or_default();
    until_confirmed(id, || shared.broker.bury(delivery, &reason, meta.as_ref())).await;
}

/// Asks until the broker has answered; nothing when it refuses for good.
pub(super) async fn until_confirmed<T, F>(task_id: &str, ask: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut refusals = 0;
    let mut streak = Streak::new("settling the end of a task");
    loop {
        match ask().await {
            Ok(answer) => {
                streak.worked();
                return Some(answer);
            }
            Err(error) => {
                if let BrokerError::Refused { cause } = &error {
                    refusals += 1;
                    if refusals == MOST_REFUSALS {
                        error!(
                            task_id,
                            cause, "the end of the task was refused; its message will come back"
                        );
                        return None;
                    }
                }
                streak.failed(&error);
            }
        }
        backoff.wait().await;
    }
}
