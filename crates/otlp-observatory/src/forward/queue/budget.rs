//! Limit on the disk space shared by the queues of all signals.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::export::Signal;

/// Disk space shared by the queues, in bytes.
///
/// An eighth of the limit is reserved for each signal, so a signal that the backend rejects cannot fill the
/// disk space of the others.
#[derive(Debug)]
pub(in crate::forward) struct Budget {
    pub(in crate::forward) limit: u64,
    used: Mutex<[u64; Signal::ALL.len()]>,
}

impl Budget {
    pub(in crate::forward) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Mutex::default(),
        }
    }

    /// Reserves `bytes` for `signal`; returns false if there is not enough space.
    pub(super) fn reserve(&self, signal: Signal, bytes: u64) -> bool {
        let mut used = self.used();
        let others: u64 = Signal::ALL
            .iter()
            .filter(|other| **other != signal)
            .map(|other| used[*other as usize].max(self.limit / 8))
            .sum();
        let own = &mut used[signal as usize];
        let fits = own.saturating_add(bytes).saturating_add(others) <= self.limit;
        if fits {
            *own += bytes;
        }
        fits
    }

    /// Adds bytes that are already on disk, even beyond the limit.
    pub(super) fn add_existing(&self, signal: Signal, bytes: u64) {
        self.used()[signal as usize] += bytes;
    }

    pub(super) fn release(&self, signal: Signal, bytes: u64) {
        let mut used = self.used();
        let own = &mut used[signal as usize];
        *own = own.saturating_sub(bytes);
    }

    /// Locks the counts. Poisoning is ignored, because a panic cannot leave a count half-updated.
    fn used(&self) -> MutexGuard<'_, [u64; Signal::ALL.len()]> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
