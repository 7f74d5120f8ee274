//! Renews the lease of a worker on a thread of its own, so blocking code in tasks cannot make a live worker
//! look dead, and restores the deliveries of dead workers.
//!
//! A confirmed renewal is valid for the length of the lease, counted from its request by this process's
//! monotonic clock. Tasks start only while the last renewal is valid. A renewal reports which deliveries
//! other workers have taken over in the meantime, and the worker lets go of them before it continues.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::shared::Shared;
use crate::{
    broker::{Broker, BrokerError, Delivery, Renewal},
    failure_log::FailureLog,
    log::{info, warn},
    system,
};

/// Number of deliveries up to which every renewal covers all of them. A worker with more renews its lease
/// just as often, but its deliveries in proportion less often.
const MAX_RENEWED: usize = 5000;
/// Shortest interval between two renewals.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Thread that renews the lease until it is stopped or dropped.
pub(super) struct LeaseThread {
    stop: DropGuard,
    ended: oneshot::Receiver<()>,
}

impl LeaseThread {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let stop = CancellationToken::new();
        let work = {
            let (shared, stop) = (Arc::clone(shared), stop.clone());
            move || async move {
                stop.run_until_cancelled(keep(&shared)).await;
            }
        };
        let ended = system::spawn_thread("celeriac-lease", work.clone()).unwrap_or_else(|error| {
            warn!(%error, "cannot start a thread for the lease; blocking tasks may make this worker look dead");
            let (ended, end) = oneshot::channel();
            tokio::spawn(async move {
                work().await;
                let _ = ended.send(());
            });
            end
        });
        Self {
            stop: stop.drop_guard(),
            ended,
        }
    }

    /// Stops renewing, and waits until the thread uses its connections no more.
    pub(super) async fn stop(self) {
        drop(self.stop);
        // An error means that the thread panicked and has ended too.
        let _ = self.ended.await;
    }
}

async fn keep(shared: &Shared) {
    let own = shared.broker.with_own_connections();
    let broker = own.as_ref().unwrap_or(&shared.broker).as_ref();
    let renewed = Notify::new();
    let renewals = Renewals {
        shared,
        broker,
        last: None,
        round: 0,
        reserved_again: Vec::new(),
    };
    tokio::join!(renewals.run(&renewed), restore(broker, &renewed));
}

/// Restores the deliveries of dead workers after each renewal.
async fn restore(broker: &dyn Broker, renewed: &Notify) {
    let mut failures = FailureLog::new("restoring messages of dead workers");
    loop {
        renewed.notified().await;
        match broker.restore_expired().await {
            Ok(restored) => {
                failures.worked();
                if restored > 0 {
                    info!(
                        celery.messages.restored = restored,
                        "returned messages of dead workers to their queues"
                    );
                }
            }
            Err(error) => failures.failed(&error),
        }
    }
}

struct Renewals<'a> {
    shared: &'a Shared,
    broker: &'a dyn Broker,
    /// Time of the last request that was confirmed.
    last: Option<Instant>,
    round: usize,
    /// Deliveries that were reserved again after the broker had lost them. A delivery that was settled in the
    /// meantime may have been reserved after its settlement and would stay reserved, so it is acknowledged
    /// once more.
    reserved_again: Vec<Delivery>,
}

impl Renewals<'_> {
    async fn run(mut self, renewed: &Notify) {
        let mut ticks = interval(self.broker.renew_interval().max(MIN_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = FailureLog::new("renewing the lease");
        loop {
            ticks.tick().await;
            match self.renew().await {
                Ok(()) => {
                    failures.worked();
                    renewed.notify_one();
                }
                Err(error) => failures.failed(&error),
            }
        }
    }

    async fn renew(&mut self) -> Result<(), BrokerError> {
        let (inflight, lease) = (&self.shared.inflight, self.broker.lease());
        let mut tags = inflight.reserved(|delivery| delivery.tag.clone());
        // Other workers can have taken deliveries only if the lease was not confirmed in time.
        let is_late = self.last.is_none_or(|last| last.elapsed() > lease / 2);
        let rounds = tags.len().div_ceil(MAX_RENEWED).max(1);
        self.round += 1;
        if !is_late && !self.round.is_multiple_of(rounds) {
            tags.clear();
        }
        let requested = Instant::now();
        let renewal = self.broker.renew(&tags).await?;
        let held = |delivery: &Delivery| inflight.holds(&delivery.tag);
        // A shutdown lets go of deliveries too, and returns them to their queues.
        while let Some(settled) = self.reserved_again.iter().position(|delivery| !held(delivery))
            && !self.shared.stop.is_cancelled()
        {
            self.broker.ack(&self.reserved_again[settled], None).await?;
            self.reserved_again.swap_remove(settled);
        }
        inflight.set_renewed(&tags);
        match renewal {
            Renewal::Kept => {}
            Renewal::Taken(tags) => {
                let (waiting, running) = inflight.lose(&tags);
                if waiting + running > 0 {
                    warn!(
                        celery.messages.waiting = waiting,
                        celery.messages.running = running,
                        "other workers have taken over messages of this worker, because it had not renewed its lease"
                    );
                }
            }
            Renewal::Lost => {
                let deliveries = inflight.reserved(Delivery::clone);
                let recovery = self.broker.reserve(&deliveries, &inflight.acknowledged()).await?;
                let (messages, settlements) = (recovery.reserved, recovery.rewritten);
                if messages + settlements > 0 {
                    warn!(
                        messaging.batch.message_count = messages,
                        celery.settlements = settlements,
                        "the broker had lost data; reserved this worker's messages and wrote its settlements again"
                    );
                }
                self.reserved_again = deliveries;
            }
        }
        self.last = Some(requested);
        self.shared.lease.confirm(requested, lease);
        Ok(())
    }
}
