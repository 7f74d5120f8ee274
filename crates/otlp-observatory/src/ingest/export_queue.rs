//! Queue of exports, bounded in bytes, with many producers and one consuming thread.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
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
    /// Maximum of [`Contents::bytes`].
    limit: usize,
    contents: Mutex<Contents>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Contents {
    /// Queued exports and their sizes in bytes.
    exports: VecDeque<(Export, usize)>,
    /// Total size of the queued exports and of the one being consumed.
    bytes: usize,
    /// Whether an export has been rejected since the queue was last empty.
    is_overloaded: bool,
    is_closed: bool,
}

impl ExportQueue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            contents: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Queues `export`, which counts as `length` bytes.
    pub(super) fn push(&self, export: Export, length: usize) -> Result<(), Rejected> {
        let mut contents = self.lock();
        if contents.is_closed {
            return Err(Rejected::Closed);
        }
        if length > self.limit.saturating_sub(contents.bytes) {
            let bytes = contents.bytes;
            let was_overloaded = std::mem::replace(&mut contents.is_overloaded, true);
            drop(contents);
            if !was_overloaded {
                telemetry::warn!(
                    queue.size = bytes,
                    queue.limit = self.limit,
                    "telemetry arrives faster than it is processed; rejecting requests until the queue has room"
                );
            }
            return Err(Rejected::Overloaded);
        }
        contents.bytes += length;
        contents.exports.push_back((export, length));
        drop(contents);
        self.changed.notify_one();
        Ok(())
    }

    /// Rejects exports from now on.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Calls `consume` with each export in order, until the queue is closed and empty.
    ///
    /// An export counts towards the limit until `consume` returns.
    pub(super) fn consume(&self, mut consume: impl FnMut(Export)) {
        while let Some((export, length)) = self.next() {
            consume(export);
            let mut contents = self.lock();
            contents.bytes -= length;
            // Cleared only now, so that a sender at the limit does not cause a log record for each request.
            if contents.bytes == 0 {
                contents.is_overloaded = false;
            }
        }
    }

    fn next(&self) -> Option<(Export, usize)> {
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
