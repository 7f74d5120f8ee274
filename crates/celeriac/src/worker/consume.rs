//! Takes messages while there is room for them and hands each to a task of its own. A broker that is away is tried
//! again for ever, with a capped back-off.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, MaybeDone, maybe_done},
    poll,
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet};
use tracing::error;

use super::{Shared, execute, inflight::Entry, settle};
use crate::{backoff::Backoff, broker::Delivery, message::Message, streak::Streak, system};

/// The wall clock may be set while a task waits for its time, so it is looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Consumes until the worker stops; returns the tasks that are still under way.
pub(super) async fn consume(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut streak = Streak::new("receiving messages");
    while !shared.stop.is_cancelled() {
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        let room = room(shared);
        if room == 0 {
            tokio::select! {
                () = shared.inflight.moved.notified() => {}
                () = shared.stop.cancelled() => {}
            }
            continue;
        }
        // Not cut short by a stop: what it takes must be known. It waits a moment at most.
        match shared.broker.receive(&shared.queues, room).await {
            Ok(deliveries) => {
                streak.worked();
                backoff.reset();
                for delivery in deliveries {
                    accept(shared, &mut tasks, delivery).await;
                }
            }
            Err(error) => {
                streak.failed(&error);
                tokio::select! {
                    () = backoff.wait() => {}
                    () = shared.stop.cancelled() => {}
                }
            }
        }
    }
    tasks
}

fn room(shared: &Shared) -> usize {
    let running = shared
        .concurrency
        .saturating_sub(shared.slots.available_permits());
    shared.inflight.room(shared.prefetch, shared.concurrency, running)
}

async fn accept(shared: &Arc<Shared>, tasks: &mut JoinSet<()>, delivery: Delivery) {
    let message = delivery.message();
    let shared = Arc::clone(shared);
    let entry = shared.inflight.add(delivery);
    match message {
        Ok(message) => {
            let mut slot = slot(&shared);
            if !is_early(&message) {
                // Slots go to tasks in the order in which they first ask, so they ask here, in the order of arrival.
                let _ = poll!(&mut slot);
            }
            let message = Box::new(message);
            tasks.spawn(async move { run(&shared, &entry, slot, message).await });
        }
        Err(poison) => {
            tasks.spawn(async move {
                if shared.inflight.begin(&entry) {
                    settle::bury(&shared, &entry.delivery, &poison).await;
                    shared.inflight.remove(&entry.delivery.tag);
                }
            });
        }
    }
}

/// A place among the running tasks, or in the queue for one; nothing when the worker has stopped.
type Slot = Pin<Box<MaybeDone<BoxFuture<'static, Option<OwnedSemaphorePermit>>>>>;

fn slot(shared: &Shared) -> Slot {
    let permit = Arc::clone(&shared.slots).acquire_owned();
    Box::pin(maybe_done(permit.map(Result::ok).boxed()))
}

fn is_early(message: &Message) -> bool {
    message.headers.eta.is_some_and(|eta| eta > system::now())
}

/// One delivery from its arrival to its end, unless the worker stops before it begins.
async fn run(shared: &Arc<Shared>, entry: &Entry, mut slot: Slot, message: Box<Message>) {
    let mut stopped = false;
    if is_early(&message) {
        let _deferred = shared.inflight.defer();
        stopped = tokio::select! {
            () = until_due(&message) => false,
            () = shared.stop.cancelled() => true,
        };
    }
    if stopped {
        return;
    }
    (&mut slot).await;
    let Some(Some(permit)) = slot.as_mut().take_output() else {
        return;
    };
    if !shared.inflight.begin(entry) {
        return;
    }
    execute::execute(shared, &entry.delivery, message, permit).await;
    shared.inflight.remove(&entry.delivery.tag);
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
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// A panic here is one of this crate, not of a task's code, which is caught where it runs. The message stays reserved
/// and comes back when it is no longer renewed.
pub(super) fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!("a delivery was abandoned by a panic of the worker");
    }
}
