//! Queue of exports, bounded in bytes, with many producers and one consuming thread. Producers wait for room in order
//! of their
//! arrival.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::{Instant, timeout_at},
};

use crate::export::Export;

/// Reason an export was not queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Rejected {
    #[error("too much telemetry is waiting to be processed; try again later")]
    Overloaded,
    #[error("the observatory is shutting down")]
    Closed,
}

#[derive(Debug)]
pub(super) struct ExportQueue {
    /// Maximum total size of the exports in bytes.
    limit: usize,
    /// Bytes that are free. Queued exports and the one being consumed hold the others.
    room: Arc<Semaphore>,
    contents: Mutex<Contents>,
    changed: Condvar,
    /// Whether an export has been rejected since the queue was last empty.
    is_overloaded: AtomicBool,
}

#[derive(Debug, Default)]
struct Contents {
    /// Queued exports, each with its room.
    exports: VecDeque<(Export, OwnedSemaphorePermit)>,
    is_closed: bool,
}

impl ExportQueue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            room: Arc::new(Semaphore::new(limit)),
            contents: Mutex::default(),
            changed: Condvar::new(),
            is_overloaded: AtomicBool::new(false),
        }
    }

    /// Queues `export`, which counts as `length` bytes, as soon as there is room. Returns whether it had to wait.
    ///
    /// # Errors
    /// Fails if there is no room at `deadline`, or the queue is closed.
    pub(super) async fn push(
        &self,
        export: Export,
        length: usize,
        deadline: Instant,
    ) -> Result<bool, Rejected> {
        let Some(count) = u32::try_from(length).ok().filter(|_| length <= self.limit) else {
            return Err(self.overloaded());
        };
        let (room, has_waited) = match self.room.clone().try_acquire_many_owned(count) {
            Ok(room) => (room, false),
            Err(TryAcquireError::Closed) => return Err(Rejected::Closed),
            Err(TryAcquireError::NoPermits) => {
                match timeout_at(deadline, self.room.clone().acquire_many_owned(count)).await {
                    Ok(Ok(room)) => (room, true),
                    Ok(Err(_)) => return Err(Rejected::Closed),
                    Err(_) => return Err(self.overloaded()),
                }
            }
        };
        let mut contents = self.lock();
        if contents.is_closed {
            return Err(Rejected::Closed);
        }
        contents.exports.push_back((export, room));
        drop(contents);
        self.changed.notify_one();
        Ok(has_waited)
    }

    fn overloaded(&self) -> Rejected {
        if !self.is_overloaded.swap(true, Relaxed) {
            telemetry::warn!(
                queue.size = self.limit - self.room.available_permits(),
                queue.limit = self.limit,
                "telemetry arrives faster than it is processed; rejecting requests until the queue has room"
            );
        }
        Rejected::Overloaded
    }

    /// Rejects exports from now on, and those that wait for room.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.room.close();
        self.changed.notify_one();
    }

    /// Calls `consume` with each export in order, until the queue is closed and empty.
    ///
    /// An export counts towards the limit until `consume` returns.
    pub(super) fn consume(&self, mut consume: impl FnMut(Export)) {
        while let Some((export, room)) = self.next() {
            consume(export);
            drop(room);
            // Cleared only when empty, so that a sender at the limit does not cause a log record for each request.
            if self.room.available_permits() == self.limit {
                self.is_overloaded.store(false, Relaxed);
            }
        }
    }

    fn next(&self) -> Option<(Export, OwnedSemaphorePermit)> {
        let mut contents = self
            .changed
            .wait_while(self.lock(), |contents| {
                contents.exports.is_empty() && !contents.is_closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        contents.exports.pop_front()
    }

    /// Locks the contents. No code panics while it holds the lock, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
