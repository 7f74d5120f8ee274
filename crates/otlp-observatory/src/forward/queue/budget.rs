//! How much of the disk the queues of the three signals may take together.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{export::Signal, forward::SIGNALS};

/// Bytes on disk, shared. An eighth is kept for each signal, so that one which the backend does not take cannot fill
/// everything and stop the others.
#[derive(Debug)]
pub(in crate::forward) struct Budget {
    limit: u64,
    used: Mutex<[u64; SIGNALS.len()]>,
}

impl Budget {
    pub(in crate::forward) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Mutex::default(),
        }
    }

    pub(in crate::forward) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `bytes` for `signal`, if they are there.
    pub(super) fn take(&self, signal: Signal, bytes: u64) -> bool {
        let mut used = self.used();
        let others: u64 = SIGNALS
            .iter()
            .filter(|other| **other != signal)
            .map(|other| used[*other as usize].max(self.limit / 8))
            .sum();
        let mine = &mut used[signal as usize];
        let fits = mine.saturating_add(bytes).saturating_add(others) <= self.limit;
        if fits {
            *mine += bytes;
        }
        fits
    }

    /// Counts what is on disk already, beyond the limit or not.
    pub(super) fn count(&self, signal: Signal, bytes: u64) {
        self.used()[signal as usize] += bytes;
    }

    pub(super) fn give_back(&self, signal: Signal, bytes: u64) {
        let mut used = self.used();
        let mine = &mut used[signal as usize];
        *mine = mine.saturating_sub(bytes);
    }

    /// Numbers that a panic does not leave half-changed.
    fn used(&self) -> MutexGuard<'_, [u64; SIGNALS.len()]> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
