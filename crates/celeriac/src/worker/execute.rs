//! Runs one task and decides how it ended: time limits, retries, expiry, panics. Nothing that a task's code does
//! reaches another task or the worker.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{self, join},
};
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Shared, events, follow,
    inflight::Entry,
    registry::Registered,
    revoked::Orders,
    settle::{self, End},
};
use crate::{
    broker::Delivery,
    canvas::MAX_RETRIES,
    log::{debug, error, warn},
    message::{Headers, Message, TimeLimit, seconds},
    observer::{Origin, TaskInfo, observed},
    result::ResultMeta,
    retry,
    streak::Streak,
    system,
    task::{Exception, SoftLimit, TaskContext, TaskError, TaskOutcome},
};

/// `slot` is free again when the task has ended. Telling the broker takes no slot: the next task runs meanwhile, and many
/// ends travel together. A task that is not to be run has none.
pub(super) async fn execute(
    shared: &Arc<Shared>,
    entry: &Entry,
    mut message: Box<Message>,
    slot: Option<OwnedSemaphorePermit>,
) {
    let delivery = &entry.delivery;
    let early = shared
        .registry
        .get(&message.headers.task)
        .is_some_and(|registered| !registered.options.acks_late);
    if early && !settle::begin(shared, entry).await {
        return;
    }
    let args = std::mem::take(&mut message.args);
    let kwargs = std::mem::take(&mut message.kwargs);
    let registered = shared.registry.get(&message.headers.task);
    let ignore_result = message.headers.ignore_result
        || registered.is_some_and(|registered| registered.options.ignore_result);
    let headers = &message.headers;
    let info = TaskInfo {
        task: &headers.task,
        id: &headers.id,
        queue: &delivery.queue,
        retries: headers.retries,
        hostname: &shared.hostname,
        registered: registered.is_some(),
    };
    let redelivered = message.redelivered();
    let asked_retries = message.properties.extra.get(MAX_RETRIES);
    let attempt = async {
        if shared.revoked.covers(headers) {
            return TaskOutcome::Revoked("revoked");
        }
        if headers.expires.is_some_and(|expires| expires < system::now()) {
            return TaskOutcome::Revoked("expired");
        }
        let Some(registered) = registered else {
            return not_registered(headers, delivery);
        };
        registered.limits.total.fetch_add(1, Ordering::Relaxed);
        let context = TaskContext {
            id: headers.id.clone(),
            task: headers.task.clone(),
            retries: headers.retries,
            hostname: shared.hostname.clone(),
            queue: delivery.queue.clone(),
            parent_id: headers.parent_id.clone(),
            root_id: headers.root_id.clone(),
            redelivered,
            soft: SoftLimit::default(),
        };
        events::started(shared, &headers.id);
        let soft = context.soft.clone();
        let usual = registered.limits.time();
        let limits = TimeLimit {
            hard: headers.timelimit.hard.or(usual.hard),
            soft: headers.timelimit.soft.or(usual.soft),
        };
        // Inside the future, so that a panic while arguments are read is caught as well.
        let call = async {
            registered
                .call(context, args, kwargs)
                .map_err(TaskError::Failed)?
                .await
        };
        let call = pin!(AssertUnwindSafe(call).catch_unwind());
        let run = within(limits, soft, &entry.orders, call);
        let track = registered.options.track_started && !ignore_result;
        let ended = if track {
            join(run, Box::pin(started(shared, headers))).await.0
        } else {
            run.await
        };
        decide(ended, registered, headers.retries, asked_retries)
    };
    let mut trace = Map::new();
    let mut origin = Origin::default();
    // Pinned where they are made: a future that is moved into another takes its place twice.
    let attempt = pin!(attempt);
    let work = pin!(async {
        let outcome = attempt.await;
        // While the observer's span is in force, so that the line carries its trace, and what follows belongs to it.
        log(headers, &outcome);
        origin = shared.observer.origin();
        if follow::follows(&message.embed) {
            trace = shared.observer.context();
        }
        outcome
    });
    shared.active.fetch_add(1, Ordering::Relaxed);
    let span = shared.observer.run(&info, &headers.extra);
    let outcome = observed(work, |poll| span.during(poll)).await;
    span.finish(&outcome);
    shared.active.fetch_sub(1, Ordering::Relaxed);
    shared.processed.fetch_add(1, Ordering::Relaxed);
    drop(slot);
    let runtime = entry.began().map_or(0.0, |began| system::unix_time() - began);
    events::ended(shared, &headers.id, &outcome, runtime, entry.orders.signal());
    let end = End {
        outcome,
        ignore_result,
        early,
        trace,
        origin,
    };
    settle::settle(shared, delivery, &message, end).await;
}

fn log(headers: &Headers, outcome: &TaskOutcome) {
    let (task, task_id, retries) = (&headers.task, &headers.id, headers.retries);
    match outcome {
        TaskOutcome::Success(_) => debug!(task, task_id, retries, "task succeeded"),
        TaskOutcome::Retry { cause, countdown } => {
            let (error, seconds) = (&cause.type_name, countdown.as_secs_f64());
            warn!(
                task,
                task_id,
                retries,
                error,
                cause = cause.message,
                seconds,
                "task will be tried again"
            );
        }
        TaskOutcome::Failure(exception) | TaskOutcome::Rejected(exception, _) => {
            error!(
                task,
                task_id,
                retries,
                error = exception.type_name,
                cause = exception.message,
                "task failed"
            );
        }
        TaskOutcome::Revoked(reason) => warn!(task, task_id, retries, reason, "task was revoked"),
    }
}

async fn started(shared: &Shared, headers: &Headers) {
    let meta = ResultMeta::started(headers, std::process::id(), &shared.hostname);
    if let Err(error) = shared.broker.store_result(&meta).await {
        // The final state matters, and is stored until it is confirmed.
        Streak::new("storing STARTED").failed(&error);
    }
}

/// How the code of a task ended.
enum Ended {
    Returned(Result<Value, TaskError>),
    Panicked(&'static str),
    Limit(TaskOutcome),
}

async fn within(
    limits: TimeLimit,
    soft: SoftLimit,
    orders: &Orders,
    mut call: Pin<&mut impl Future<Output = Result<Result<Value, TaskError>, Box<dyn Any + Send>>>>,
) -> Ended {
    let mut at_soft = pin!(after(limits.soft));
    let mut at_hard = pin!(after(limits.hard));
    let mut soft_passed = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut call => return match ended {
                Ok(returned) => Ended::Returned(returned),
                Err(panic) => Ended::Panicked(panic_text(panic.as_ref())),
            },
            () = orders.terminated() => return Ended::Limit(TaskOutcome::Revoked("terminated")),
            limit = &mut at_hard => return Ended::Limit(limit_exceeded("TimeLimitExceeded", vec![seconds(limit)])),
            _ = &mut at_soft, if !soft_passed => {
                soft_passed = true;
                if !soft.pass() {
                    return Ended::Limit(limit_exceeded("SoftTimeLimitExceeded", Vec::new()));
                }
            }
        }
    }
}

/// Resolves when the limit has passed, never without one.
async fn after(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => future::pending().await,
    }
}

fn limit_exceeded(type_name: &str, arguments: Vec<Value>) -> TaskOutcome {
    let message = arguments.first().map(Value::to_string).unwrap_or_default();
    let exception = Exception {
        type_name: type_name.to_owned(),
        module: "billiard.exceptions".to_owned(),
        message,
    };
    TaskOutcome::Rejected(exception, arguments)
}

/// The message of a panic where it is a constant of the program. One that was put together may hold any value that the
/// task had, and results and logs are for more eyes than those.
fn panic_text(panic: &(dyn Any + Send)) -> &'static str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("with a message that may hold values, and is withheld")
}

fn decide(ended: Ended, registered: &Registered, retries: u32, asked: Option<&Value>) -> TaskOutcome {
    let options = &registered.options;
    match ended {
        Ended::Returned(Ok(value)) => TaskOutcome::Success(value),
        Ended::Returned(Err(TaskError::Failed(exception))) => TaskOutcome::Failure(exception),
        Ended::Returned(Err(TaskError::Retry { cause, .. }))
            if !retry::goes_on(retries, options.max_retries, asked) =>
        {
            TaskOutcome::Failure(cause)
        }
        Ended::Returned(Err(TaskError::Retry { cause, countdown })) => TaskOutcome::Retry {
            cause,
            countdown: countdown.unwrap_or_else(|| options.retry_delay.after(retries)),
        },
        Ended::Panicked(message) => TaskOutcome::Failure(Exception {
            type_name: "Panic".to_owned(),
            module: "celeriac".to_owned(),
            message: message.to_owned(),
        }),
        Ended::Limit(outcome) => outcome,
    }
}

fn not_registered(headers: &Headers, delivery: &Delivery) -> TaskOutcome {
    // Everything but the arguments, which may be personal.
    error!(
        task = headers.task,
        task_id = headers.id,
        queue = delivery.queue,
        retries = headers.retries,
        eta = ?headers.eta,
        expires = ?headers.expires,
        parent_id = headers.parent_id,
        root_id = headers.root_id,
        origin = headers.origin,
        bytes = delivery.raw.len(),
        "received a task that is not registered"
    );
    let exception = Exception {
        type_name: "NotRegistered".to_owned(),
        module: "celery.exceptions".to_owned(),
        message: headers.task.clone(),
    };
    TaskOutcome::Rejected(exception, vec![json!(headers.task)])
}
