//! Counts of accepted items and rejected requests since start-up, for `/status`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::export::{Counts, Signal};

/// Counts of accepted items and rejected requests.
#[derive(Debug, Default)]
pub(crate) struct Received {
    accepted: [AtomicU64; Signal::ALL.len()],
    rejected_requests: AtomicU64,
}

impl Received {
    /// Returns the numbers of accepted spans, log records and metric points.
    pub(crate) fn counts(&self) -> Counts {
        Counts::of(|signal| self.accepted[signal as usize].load(Relaxed))
    }

    /// Returns the number of rejected requests, whatever the reason.
    pub(crate) fn rejected_requests(&self) -> u64 {
        self.rejected_requests.load(Relaxed)
    }

    pub(super) fn count_accepted(&self, signal: Signal, items: usize) {
        self.accepted[signal as usize].fetch_add(items as u64, Relaxed);
    }

    pub(crate) fn count_rejected(&self) {
        self.rejected_requests.fetch_add(1, Relaxed);
    }
}
