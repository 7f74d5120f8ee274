//! State shared by all parts of a running worker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    event_buffer::EventBuffer, inflight::Inflight, lease_status::LeaseStatus, registry::Registry,
    revoked::Revoked,
};
use crate::{
    broker::{Broker, Exchange},
    client::Client,
    compression::Compression,
    control::clock::Clock,
    data::Data,
    lock::Lock,
    observer::Observer,
};

/// Maximum time that a query waits for messages that were sent before it.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Binding of one of the worker's queues to an exchange.
#[derive(Debug)]
pub(super) struct QueueBinding {
    pub queue: String,
    pub exchange: Exchange,
    pub routing_key: String,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) hostname: String,
    pub(super) queues: Lock<Arc<[String]>>,
    pub(super) bindings: Vec<QueueBinding>,
    pub(super) prefetch_multiplier: usize,
    pub(super) registry: Registry,
    pub(super) inflight: Inflight,
    pub(super) lease: LeaseStatus,
    /// Whether a redelivered task whose result is final is acknowledged without running.
    pub(super) skip_finished: bool,
    /// Whether the messages of failed tasks are kept in the dead-letter list.
    pub(super) keep_failed: bool,
    /// Values that tasks share.
    pub(super) data: Arc<Data>,
    /// Compression of the results of successful tasks.
    pub(super) result_compression: Option<Compression>,
    /// Whether results contain the call of their task.
    pub(super) result_extended: bool,
    /// Whether results of all tasks are discarded.
    pub(super) ignore_result: bool,
    pub(super) revoked: Revoked,
    pub(super) events: EventBuffer,
    /// Client that sends the tasks of tasks.
    pub(super) client: Client,
    /// Maximum number of concurrent tasks.
    pub(super) concurrency: AtomicUsize,
    /// Semaphore with one permit for each running task; closed when the worker stops.
    pub(super) slots: Arc<Semaphore>,
    /// Number of requests for messages that have ended, with their messages held or postponed.
    pub(super) receptions: watch::Sender<u64>,
    pub(super) stop: CancellationToken,
    /// Cancelled once the exchange with the other workers has ended, or remote control is unavailable.
    pub(super) mingled: CancellationToken,
    pub(super) clock: Clock,
    pub(super) started: Instant,
    pub(super) active: AtomicUsize,
    pub(super) processed: AtomicU64,
}

impl Shared {
    /// Returns the queues to receive from.
    pub(super) fn queues(&self) -> Arc<[String]> {
        Arc::clone(&self.queues.lock())
    }

    pub(super) fn set_queues(&self, queues: Arc<[String]>) {
        *self.queues.lock() = queues;
        self.inflight.room_changed.notify_one();
    }

    pub(super) fn set_concurrency(&self, slots: usize) {
        self.concurrency.store(slots, Ordering::Relaxed);
        self.inflight.room_changed.notify_one();
    }

    pub(super) fn concurrency(&self) -> usize {
        self.concurrency.load(Ordering::Relaxed)
    }

    /// Waits until this worker has received the messages that are in its queues now. A worker that has no room for more
    /// messages, or no connection, lets this wait expire.
    pub(super) async fn catch_up(&self) {
        let mut receptions = self.receptions.subscribe();
        // A request that has begun may miss the latest messages.
        let after_next = receptions.borrow().saturating_add(2);
        let _ = timeout(CATCH_UP, receptions.wait_for(|ended| *ended >= after_next)).await;
    }

    /// Returns the maximum number of held messages, not counting tasks that wait for their `eta`.
    pub(super) fn prefetch(&self) -> usize {
        self.concurrency().saturating_mul(self.prefetch_multiplier)
    }
}
