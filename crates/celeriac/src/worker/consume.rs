//! Receives messages while there is room for them, and spawns a task for each. While the broker is
//! unavailable, retries without limit, with a capped back-off.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, MaybeDone, maybe_done},
    poll,
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet};

use super::{events, execute, inflight::Entry, settle, shared::Shared};
use crate::{
    back_off::BackOff,
    broker::Delivery,
    failure_log::FailureLog,
    log::{error, warn},
    message::Message,
    system,
    task_id::TaskId,
};

/// Maximum sleep of a task that waits for its `eta`, after which a change of the wall clock is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Receives messages until the worker stops. Returns the tasks still in progress.
pub(super) async fn consume(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut back_off = BackOff::default();
    let mut failures = FailureLog::new("receiving messages");
    let mut full = false;
    while !shared.stop.is_cancelled() {
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        let room = room(shared);
        let was_full = std::mem::replace(&mut full, shared.inflight.is_full());
        if full && !was_full {
            warn!(
                "the maximum number of tasks with an eta in the future is held; receiving no more until some of them start"
            );
        }
        let queues = shared.queues();
        if room == 0 || queues.is_empty() {
            // Waits until remote control adds a queue.
            tokio::select! {
                () = shared.inflight.room_changed.notified() => {}
                () = shared.stop.cancelled() => {}
            }
            continue;
        }
        // Not interrupted by a stop, since received messages must be known. Waits only briefly.
        match shared.broker.receive(&queues, room).await {
            Ok(deliveries) => {
                failures.worked();
                back_off.reset();
                for delivery in deliveries {
                    accept(shared, &mut tasks, delivery).await;
                }
            }
            Err(error) => {
                failures.failed(&error);
                tokio::select! {
                    () = back_off.wait() => {}
                    () = shared.stop.cancelled() => {}
                }
            }
        }
    }
    tasks
}

fn room(shared: &Shared) -> usize {
    let concurrency = shared.concurrency();
    let running = concurrency.saturating_sub(shared.slots.available_permits());
    shared.inflight.room(shared.prefetch(), concurrency, running)
}

async fn accept(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, delivery: Delivery) {
    let message = delivery.message();
    let shared = Arc::clone(shared);
    let id = match &message {
        Ok(message) => message.headers.id.clone(),
        Err(_) => TaskId::from(""),
    };
    let entry = shared.inflight.add(delivery, id);
    match message {
        Ok(message) => {
            events::received(&shared, &message);
            let mut slot = slot(&shared);
            if !message.is_early(system::now()) && !has_rate(&shared, &message) {
                // The semaphore is fair, so tasks request their slots here, in order of arrival.
                let _ = poll!(&mut slot);
            }
            let message = Box::new(message);
            tasks.spawn(async move { run(&shared, &entry, slot, message).await });
        }
        Err(poison) => {
            tasks.spawn(async move {
                if shared.inflight.start(&entry) {
                    settle::bury(&shared, &entry.delivery, &poison).await;
                    if let Some(id) = &poison.task_id {
                        events::rejected(&shared, id);
                    }
                    shared.inflight.remove(&entry.delivery.tag);
                }
            });
        }
    }
}

/// Future of a slot for a running task; resolves to `None` once the worker has stopped.
type Slot = Pin<Box<MaybeDone<BoxFuture<'static, Option<OwnedSemaphorePermit>>>>>;

fn slot(shared: &Shared) -> Slot {
    let permit = Arc::clone(&shared.slots).acquire_owned();
    Box::pin(maybe_done(permit.map(Result::ok).boxed()))
}

/// Handles a delivery from its arrival to its settlement, unless the worker stops before the task starts.
async fn run(shared: &Arc<Shared>, entry: &Entry, mut slot: Slot, message: Box<Message>) {
    if !may_begin(shared, entry, &message).await {
        return;
    }
    let permit = tokio::select! {
        biased;
        () = &mut slot => match slot.as_mut().take_output() {
            Some(Some(permit)) => Some(permit),
            _ => return,
        },
        // A revoked task runs no code, so it needs no slot.
        () = entry.orders.revoked() => None,
    };
    if !shared.inflight.start(entry) {
        return;
    }
    execute::execute(shared, entry, message, permit).await;
    shared.inflight.remove(&entry.delivery.tag);
}

/// Waits for the task's `eta` and for its rate limit. Returns false if the worker stops first. A task that
/// must not run does not wait.
async fn may_begin(shared: &Shared, entry: &Entry, message: &Message) -> bool {
    if !message.is_early(system::now()) && !has_rate(shared, message) {
        return true;
    }
    // A deferred task does not keep others from being received.
    let _deferred = shared.inflight.defer();
    let wait = async {
        until_due(message).await;
        if let Some(registered) = shared.registry.get(&message.headers.task) {
            registered.limits.acquire().await;
        }
    };
    tokio::select! {
        () = wait => true,
        () = entry.orders.revoked() => true,
        () = shared.stop.cancelled() => false,
    }
}

/// Returns whether the task has a rate limit.
fn has_rate(shared: &Shared, message: &Message) -> bool {
    let registered = shared.registry.get(&message.headers.task);
    registered.is_some_and(|registered| registered.limits.has_rate())
}

async fn until_due(message: &Message) {
    let Some(eta) = message.headers.eta else { return };
    loop {
        let now = system::now();
        let Ok(left) = Duration::try_from(eta.duration_since(now)) else {
            return;
        };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(MAX_SLEEP)).await;
    }
}

/// Logs a panic of this crate; panics of a task's code are caught where it runs. The message stays reserved,
/// and is redelivered once it is no longer renewed.
pub(super) fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!("the worker panicked while handling a delivery; its message will be redelivered");
    }
}
