//! Receives messages while there is room for them, and spawns a task for each. Messages with a future `eta` are
//! postponed: the broker keeps them until they are due. While the broker is unavailable, receiving is retried
//! without limit, with a capped back-off.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, MaybeDone, maybe_done},
    poll,
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::Instant};

use super::{events, execute, inflight::Entry, revoked::Interruption, settle, shared::Shared};
use crate::{
    back_off::BackOff,
    broker::Delivery,
    failure_log::FailureLog,
    log::{error, warn},
    message::Message,
    system,
    task_id::TaskId,
    time,
};

/// Maximum time that a task sleeps before it compares its `eta` with the wall clock again, in case the clock
/// was changed.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Maximum time until the `eta` for which a task waits in the worker; other tasks are postponed.
const MAX_HELD: Duration = Duration::from_secs(1);

/// Receives messages until the worker stops. Returns the tasks still in progress.
pub(super) async fn consume(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut back_off = BackOff::default();
    let mut failures = FailureLog::new("receiving messages");
    while !shared.stop.is_cancelled() {
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        let room = room(shared);
        let queues = shared.queues();
        if room == 0 || queues.is_empty() {
            let room_changed = shared.inflight.room_changed.notified();
            shared.stop.run_until_cancelled(room_changed).await;
            continue;
        }
        if !shared.lease.is_valid() {
            shared.stop.run_until_cancelled(shared.lease.valid()).await;
            continue;
        }
        // A stop does not cancel this call, because received messages could be lost. The call waits only
        // briefly.
        let requested = Instant::now();
        match shared.broker.receive(&queues, room).await {
            Ok(deliveries) => {
                failures.worked();
                back_off.reset();
                let mut later = Vec::new();
                for delivery in deliveries {
                    if let Some(held) = accept(shared, &mut tasks, delivery, requested).await {
                        later.push(held);
                    }
                }
                if !later.is_empty() {
                    postpone(shared, &mut tasks, later).await;
                }
                shared.receptions.send_modify(|ended| *ended += 1);
            }
            Err(error) => {
                failures.failed(&error);
                shared.stop.run_until_cancelled(back_off.wait()).await;
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

/// A delivery and its message.
type Held = (Arc<Entry>, Box<Message>);

/// Accepts a delivery that was received by a request sent at `requested`. Returns it if it must be postponed.
async fn accept(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    delivery: Delivery,
    requested: Instant,
) -> Option<Held> {
    let message = delivery.message();
    let id = message
        .as_ref()
        .map_or_else(|_| TaskId::from(""), |message| message.headers.id.clone());
    let entry = shared.inflight.add(delivery, id, requested);
    let message = match message {
        Ok(message) => Box::new(message),
        Err(poison) => {
            let shared = Arc::clone(shared);
            tasks.spawn(async move {
                if shared.inflight.start(&entry) {
                    settle::bury(&shared, &entry.delivery, &poison).await;
                    if let Some(id) = &poison.task_id {
                        events::emit(&shared, "task-rejected", id, [("requeue", false.into())]);
                    }
                    shared.inflight.remove(&entry.delivery.tag);
                }
            });
            return None;
        }
    };
    events::received(shared, &message);
    if message.is_early(time::later(system::now(), MAX_HELD)) {
        if !shared.revoked.contains(&message.headers) {
            return Some((entry, message));
        }
        entry.orders.revoke();
    }
    hold(shared, tasks, entry, message).await;
    None
}

/// Spawns a task that holds a delivery until it is settled.
async fn hold(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, entry: Arc<Entry>, message: Box<Message>) {
    let shared = Arc::clone(shared);
    let mut slot = slot(&shared);
    if !message.is_early(system::now()) && !has_rate(&shared, &message) {
        // The semaphore is fair, so tasks request their slots here, in order of arrival.
        let _ = poll!(&mut slot);
    }
    tasks.spawn(async move { run(&shared, &entry, slot, message).await });
}

/// Postpones deliveries, or keeps them in the worker if the broker is unavailable.
async fn postpone(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, later: Vec<Held>) {
    let (later, lost): (Vec<Held>, Vec<Held>) =
        later.into_iter().partition(|(entry, _)| entry.begin_postponing());
    let deliveries: Vec<(&Delivery, &Message)> = later
        .iter()
        .map(|(entry, message)| (&entry.delivery, &**message))
        .collect();
    match shared.broker.postpone(&deliveries).await {
        Ok(postponed) => {
            let taken = postponed.iter().filter(|postponed| !**postponed).count();
            if taken > 0 {
                warn!(
                    celery.messages.taken = taken,
                    "did not postpone tasks whose messages other workers have taken over"
                );
            }
            for (entry, _) in later.iter().chain(&lost) {
                shared.inflight.remove(&entry.delivery.tag);
            }
        }
        Err(error) => {
            FailureLog::new("postponing tasks").failed(&error);
            for (entry, message) in later {
                entry.cancel_postponing();
                hold(shared, tasks, entry, message).await;
            }
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
async fn run(shared: &Arc<Shared>, entry: &Arc<Entry>, slot: Slot, message: Box<Message>) {
    if let Some(permit) = may_start(shared, entry, slot, &message).await
        && shared.inflight.start(entry)
    {
        execute::execute(shared, entry, message, permit).await;
        shared.inflight.remove(&entry.delivery.tag);
    } else if entry.is_lost() {
        shared.inflight.remove(&entry.delivery.tag);
    }
}

/// Waits until the task may start, and returns its slot; a revoked task runs no code, so it needs no slot.
/// Returns `None` if the worker stops first, or another worker takes over the delivery.
async fn may_start(
    shared: &Shared,
    entry: &Entry,
    mut slot: Slot,
    message: &Message,
) -> Option<Option<OwnedSemaphorePermit>> {
    if !may_begin(shared, entry, message).await {
        return None;
    }
    let permit = tokio::select! {
        biased;
        () = &mut slot => Some(slot.as_mut().take_output()??),
        interruption = entry.orders.before_start() => match interruption {
            Interruption::Lost => return None,
            _ => None,
        },
    };
    // A worker that was paused must not start what others have run in the meantime.
    tokio::select! {
        biased;
        () = shared.lease.valid_for(entry, shared.broker.lease()) => Some(permit),
        () = shared.stop.cancelled() => None,
    }
}

/// Waits for the task's `eta` and for its rate limit; ends early if the task is revoked. Returns false if the
/// worker stops first, or another worker takes over the delivery.
async fn may_begin(shared: &Shared, entry: &Entry, message: &Message) -> bool {
    if !message.is_early(system::now()) && !has_rate(shared, message) {
        return true;
    }
    let wait = async {
        if message.is_early(system::now()) {
            let _deferred = shared.inflight.defer();
            until_due(message).await;
        }
        if let Some(registered) = shared.registry.get(&message.headers.task) {
            let _limited = shared.inflight.limit();
            registered.limits.acquire().await;
        }
    };
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => false,
        interruption = entry.orders.before_start() => interruption != Interruption::Lost,
        () = wait => true,
    }
}

/// Returns whether the task has a rate limit.
fn has_rate(shared: &Shared, message: &Message) -> bool {
    let registered = shared.registry.get(&message.headers.task);
    registered.is_some_and(|registered| registered.limits.has_rate())
}

async fn until_due(message: &Message) {
    let Some(eta) = message.headers.eta else { return };
    while let Ok(left) = Duration::try_from(eta.duration_since(system::now()))
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(MAX_SLEEP)).await;
    }
}

/// Logs a panic of this crate; panics in a task's code are caught elsewhere. The message stays reserved and
/// is redelivered once its lease expires.
pub(super) fn report(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|failure| failure.is_panic()) {
        error!("the worker panicked while handling a delivery; its message will be redelivered");
    }
}
