//! Changes to a running worker: rate and time limits, queues, concurrency, events, shutdown.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::reply::{Failure, MethodResult, ok};
use crate::{
    log::{debug, info, warn},
    message::TimeLimit,
    rate_limit::RateLimit,
    worker::{pulse, shared::Shared},
};

/// Maximum concurrency.
const MAX_CONCURRENCY: usize = 100_000;
/// Maximum number of queues. Every receive reads all of them.
const MAX_QUEUES: usize = 256;
/// Maximum length of a queue's name, in bytes.
const MAX_QUEUE_NAME: usize = 255;

#[derive(Deserialize)]
pub(super) struct RateOrder {
    task_name: String,
    rate_limit: Value,
}

pub(super) fn rate_limit(shared: &Shared, order: &RateOrder) -> MethodResult {
    let text = match &order.rate_limit {
        Value::Null => "0",
        Value::String(text) if text.is_empty() => "0",
        Value::String(text) => text,
        number => &number.to_string(),
    };
    let invalid = |_| Failure::Other(format!("Invalid rate limit string: ValueError({text:?})"));
    let rate = RateLimit::parse(text).map_err(invalid)?;
    let task = &order.task_name;
    let registered = shared.registry.get(task).ok_or(Failure::UnknownTask)?;
    info!(
        celery.task_name = task,
        celery.rate_limit = text,
        "set a rate limit"
    );
    registered.limits.set_rate(rate);
    if text != "0" || order.rate_limit.is_string() {
        ok("new rate limit set successfully")
    } else {
        ok("rate limit disabled successfully")
    }
}

#[derive(Deserialize)]
pub(super) struct NewTimeLimit {
    task_name: String,
    hard: Option<f64>,
    soft: Option<f64>,
}

pub(super) fn time_limit(shared: &Shared, order: &NewTimeLimit) -> MethodResult {
    let task = &order.task_name;
    let registered = shared.registry.get(task).ok_or(Failure::UnknownTask)?;
    let limit = |seconds: Option<f64>| match seconds {
        // As in Python, zero means no limit.
        None | Some(0.0) => Ok(None),
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .map(Some)
            .map_err(|_| Failure::Value("a time limit must be a non-negative number of seconds".to_owned())),
    };
    let limits = TimeLimit {
        hard: limit(order.hard)?,
        soft: limit(order.soft)?,
    };
    info!(
        celery.task_name = task,
        celery.time_limit.soft = order.soft,
        celery.time_limit.hard = order.hard,
        "set time limits"
    );
    registered.limits.set_time_limit(limits);
    ok("time limits set successfully")
}

#[derive(Deserialize)]
pub(super) struct Consumer {
    queue: String,
}

pub(super) fn add_consumer(shared: &Shared, order: &Consumer) -> MethodResult {
    let queue = &order.queue;
    if queue.is_empty() || queue.len() > MAX_QUEUE_NAME {
        let message = format!("a queue's name must be 1 to {MAX_QUEUE_NAME} bytes long");
        return Err(Failure::Other(message));
    }
    let queues = shared.queues();
    if !queues.contains(queue) {
        if queues.len() >= MAX_QUEUES {
            let message = format!("the worker already consumes from {MAX_QUEUES} queues, the maximum");
            return Err(Failure::Other(message));
        }
        info!(messaging.destination.name = queue, "consuming from another queue");
        shared.set_queues(queues.iter().cloned().chain([queue.clone()]).collect());
    }
    ok(format!("add consumer {queue}"))
}

pub(super) fn cancel_consumer(shared: &Shared, order: &Consumer) -> MethodResult {
    let queue = &order.queue;
    info!(
        messaging.destination.name = queue,
        "no longer consuming from a queue"
    );
    let queues = shared.queues();
    let left = queues.iter().filter(|known| *known != queue).cloned();
    shared.set_queues(left.collect());
    ok(format!("no longer consuming from {queue}"))
}

#[derive(Deserialize)]
pub(super) struct Pool {
    n: Option<usize>,
}

pub(super) fn pool_grow(shared: &Shared, order: &Pool) -> MethodResult {
    let more = order.n.unwrap_or(1);
    let slots = shared.concurrency().saturating_add(more);
    if slots > MAX_CONCURRENCY {
        return Err(Failure::Value(format!(
            "the pool cannot grow beyond {MAX_CONCURRENCY} concurrent tasks"
        )));
    }
    shared.set_concurrency(slots);
    shared.slots.add_permits(more);
    info!(celery.concurrency = slots, "increased the concurrency");
    ok("pool will grow")
}

pub(super) fn pool_shrink(shared: &Shared, order: &Pool) -> MethodResult {
    let less = order.n.unwrap_or(1);
    let slots = shared.concurrency();
    if less >= slots {
        return Err(Failure::Value("the pool must keep at least one slot".to_owned()));
    }
    shared.set_concurrency(slots - less);
    let taken = shared.slots.forget_permits(less);
    tokio::spawn(remove_slots(Arc::clone(&shared.slots), less - taken));
    info!(celery.concurrency = slots - less, "reduced the concurrency");
    ok("pool will shrink")
}

/// Removes `count` slots that are in use, each as soon as its task ends.
async fn remove_slots(slots: Arc<Semaphore>, count: usize) {
    for _ in 0..count {
        match slots.acquire().await {
            Ok(slot) => slot.forget(),
            Err(_) => return,
        }
    }
}

pub(super) fn enable_events(shared: &Shared, enable: bool) -> MethodResult {
    let was = shared.events.enable(enable);
    if was != enable {
        info!(
            celery.events_enabled = enable,
            "remote control enabled or disabled task events"
        );
    }
    let state = if enable { "enabled" } else { "disabled" };
    let already = if was == enable { "already " } else { "" };
    ok(format!("task events {already}{state}"))
}

pub(super) async fn heartbeat(shared: &Shared) -> Value {
    if let Err(error) = pulse::announce(shared, "worker-heartbeat").await {
        debug!(%error, "failed to send a heartbeat");
    }
    Value::Null
}

/// Starts a warm shutdown. Like Celery's workers, sends no reply; the sender sees that the worker goes offline.
pub(super) fn shutdown(shared: &Shared) {
    warn!("remote control requested a shutdown");
    shared.stop.cancel();
}
