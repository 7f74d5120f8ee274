//! A queue of exports, bounded in bytes, with many producers and one consuming thread.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::export::Export;

/// Reason an export was not queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
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
    /// Waiting exports and their sizes in bytes.
    exports: VecDeque<(Export, usize)>,
    /// Size of the exports that wait or are being consumed.
    bytes: usize,
    /// Whether an export has been refused since the queue was last empty.
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

    /// Queues `export` as `length` bytes.
    pub(super) fn push(&self, export: Export, length: usize) -> Result<(), Refused> {
        let mut contents = self.lock();
        if contents.is_closed {
            return Err(Refused::Closed);
        }
        if length > self.limit.saturating_sub(contents.bytes) {
            let bytes = contents.bytes;
            let was_overloaded = std::mem::replace(&mut contents.is_overloaded, true);
            drop(contents);
            if !was_overloaded {
                telemetry::warn!(
                    bytes,
                    limit = self.limit,
                    "telemetry arrives faster than it is processed; requests are refused until the queue is empty"
                );
            }
            return Err(Refused::Overloaded);
        }
        contents.bytes += length;
        contents.exports.push_back((export, length));
        drop(contents);
        self.changed.notify_one();
        Ok(())
    }

    /// Refuses exports from now on.
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
            // Not earlier, so that a sender at the limit does not cause a log record for each request.
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

    /// No code panics while it holds the lock, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
