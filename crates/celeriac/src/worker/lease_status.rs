//! Whether the worker's lease is confirmed: tasks start only while it is.

use tokio::{sync::watch, time::Instant};

/// Confirmation of the worker's lease.
#[derive(Debug)]
pub(super) struct LeaseStatus {
    valid_until: watch::Sender<Option<Instant>>,
}

impl Default for LeaseStatus {
    fn default() -> Self {
        let valid_until = watch::Sender::new(None);
        Self { valid_until }
    }
}

impl LeaseStatus {
    /// Records that the lease is confirmed until a time of this process's monotonic clock.
    pub(super) fn confirm(&self, until: Instant) {
        self.valid_until.send_replace(Some(until));
    }

    /// Returns whether the lease is confirmed, so that tasks may start.
    pub(super) fn is_valid(&self) -> bool {
        is_future(&self.valid_until.borrow())
    }

    /// Resolves once the lease is confirmed.
    pub(super) async fn valid(&self) {
        // The sender is part of `self`, so it cannot be dropped in the meantime.
        let _ = self.valid_until.subscribe().wait_for(is_future).await;
    }
}

fn is_future(until: &Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}
