//! State of the lease that shows other workers that this worker is alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::judge::Judge;
use crate::lock::Lock;

/// Time without renewal after which missing data does not count as lost: it has expired, and other workers
/// have restored the messages.
const MAX_SUSPENSION: Duration = Duration::from_secs(43_200);

#[derive(Default)]
pub(super) struct Lease {
    /// Whether the server has ever confirmed the lease.
    held: AtomicBool,
    /// Whether the server has lost the lease, and the deliveries are not yet reserved again.
    pub lost: AtomicBool,
    /// The server that holds the deliveries, and the number of the last confirmed write there.
    confirmed: Lock<Option<(Arc<str>, u64)>>,
    /// Number of the next tag that this worker assigns.
    pub next_tag: AtomicU64,
    /// Value of `next_tag` at the last renewal. The worker knows of all deliveries with lower numbers.
    pub known_tags: AtomicU64,
    renewed: Lock<Option<Instant>>,
    /// Number of the last write that the server has kept, if it has lost later ones and its identity has not
    /// changed.
    rewound: Lock<Option<u64>>,
    /// Observations of the leases of all workers.
    pub judge: Lock<Judge>,
    /// Number of observations.
    pub observations: AtomicU64,
}

impl Lease {
    /// Returns whether the server has ever confirmed the lease. Call before sending a request that sets it.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Records that the server has set the lease. `added` is true if the server had no lease of this worker;
    /// if `was_held` is also true, the server has lost it.
    pub(super) fn set(&self, was_held: bool, added: bool) {
        self.held.store(true, Ordering::Release);
        if was_held && added {
            self.lost.store(true, Ordering::Release);
        }
    }

    /// Returns the server that holds the deliveries, and the number of the last write that it has confirmed.
    pub(super) fn confirmed(&self) -> Option<(Arc<str>, u64)> {
        self.confirmed.lock().clone()
    }

    /// Records a confirmed write. Writes to a server other than the one that holds the deliveries do not
    /// count.
    pub(super) fn confirm(&self, server: &Arc<str>, number: u64) {
        let mut confirmed = self.confirmed.lock();
        match &mut *confirmed {
            Some((known, last)) if known == server => *last = number.max(*last),
            Some(_) => {}
            None => *confirmed = Some((Arc::clone(server), number)),
        }
    }

    /// Records that `server` holds all deliveries.
    pub(super) fn adopt(&self, server: &Arc<str>, number: u64) {
        *self.confirmed.lock() = Some((Arc::clone(server), number));
    }

    /// Records a renewal; `is_older` tells whether the server's data is older than the last write. Returns
    /// whether the server has lost the deliveries.
    pub(super) fn renewed(&self, is_older: bool) -> bool {
        let before = self.renewed.lock().replace(Instant::now());
        if before.is_some_and(|before| before.elapsed() > MAX_SUSPENSION) {
            self.clear_lost();
            return false;
        }
        is_older || self.lost.load(Ordering::Acquire)
    }

    /// Records that the server has kept only the writes up to `number`.
    pub(super) fn set_rewound(&self, number: u64) {
        let mut rewound = self.rewound.lock();
        // Keeps the first number: those of later renewals include the writes since the loss.
        rewound.get_or_insert(number);
    }

    pub(super) fn rewound(&self) -> Option<u64> {
        *self.rewound.lock()
    }

    /// Records that all lost deliveries are reserved again.
    pub(super) fn clear_lost(&self) {
        *self.rewound.lock() = None;
        self.lost.store(false, Ordering::Release);
    }
}
