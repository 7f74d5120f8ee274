//! State of the lease that shows other workers that this worker is alive.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::lock::Lock;

#[derive(Default)]
pub(super) struct Lease {
    /// Whether the server has ever confirmed the lease.
    held: AtomicBool,
    /// Whether the server has lost the lease, and the deliveries are not yet reserved again.
    pub lost: AtomicBool,
    /// Server time of the last renewal.
    pub renewed: Lock<Option<f64>>,
}

impl Lease {
    /// Returns whether the server has ever confirmed the lease. Call before sending a request that sets it.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Records that the server has set the lease. `added` is true if the lease did not exist; if it was held
    /// when the request was sent, the server has lost it.
    pub(super) fn set(&self, was_held: bool, added: bool) {
        self.held.store(true, Ordering::Release);
        if was_held && added {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Records that all lost deliveries are reserved again.
    pub(super) fn clear_lost(&self) {
        self.lost.store(false, Ordering::Release);
    }
}
