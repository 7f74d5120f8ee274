//! A queue of exports, bounded in bytes: many put in, one thread takes out.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::export::Export;

/// Why an export was not queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("too much is waiting to be kept; try again later")]
    Overloaded,
    #[error("shutting down")]
    Closed,
}

#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    exports: VecDeque<(Export, usize)>,
    /// Of what waits and of what is being taken.
    bytes: usize,
    overloaded: bool,
    closed: bool,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Queues `export`, which counts as `length` bytes.
    pub(super) fn push(&self, export: Export, length: usize) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if length > self.limit.saturating_sub(state.bytes) {
            let waiting = state.bytes;
            let first = !std::mem::replace(&mut state.overloaded, true);
            drop(state);
            if first {
                telemetry::warn!(
                    waiting,
                    limit = self.limit,
                    "more is received than can be kept: senders are told to come back"
                );
            }
            return Err(Refused::Overloaded);
        }
        state.bytes += length;
        state.exports.push_back((export, length));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Nothing is queued from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Calls `take` with each export in the order they came, until the queue is closed and empty. An export counts until
    /// `take` has returned.
    pub(super) fn take_each(&self, mut take: impl FnMut(Export)) {
        while let Some((export, length)) = self.next() {
            take(export);
            let mut state = self.lock();
            state.bytes -= length;
            // Only an empty queue ends it, so that a sender at the limit does not make a line for each request.
            if state.bytes == 0 {
                state.overloaded = false;
            }
        }
    }

    fn next(&self) -> Option<(Export, usize)> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| state.exports.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.exports.pop_front()
    }

    /// Nothing panics while it holds the lock, so a poisoned one is sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
