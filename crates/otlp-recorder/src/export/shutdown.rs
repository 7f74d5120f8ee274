//! The shutdown request for the loops of the export thread.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Time limit for a failing collector at shutdown. It is short for services that run without a collector
/// during development.
const FAILING_COLLECTOR_TIME: Duration = Duration::from_secs(1);

/// The time limit of a shutdown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShutdownLimit {
    requested: Instant,
    deadline: Instant,
}

impl ShutdownLimit {
    /// Returns the limit of a shutdown that begins now.
    pub(crate) fn new(deadline: Instant) -> Self {
        Self {
            requested: Instant::now(),
            deadline,
        }
    }

    /// Returns the deadline for a collector, which is earlier if its last export failed.
    pub(crate) fn for_collector(self, failing: bool) -> Instant {
        if failing {
            self.deadline.min(self.requested + FAILING_COLLECTOR_TIME)
        } else {
            self.deadline
        }
    }
}

/// The receiving side of the shutdown request.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown(watch::Receiver<Option<ShutdownLimit>>);

impl Shutdown {
    /// Returns the sender that requests the shutdown, and the receiving side. Dropping the sender does not
    /// request a shutdown.
    pub(crate) fn new() -> (watch::Sender<Option<ShutdownLimit>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Returns the limit if the shutdown has been requested.
    pub(crate) fn limit(&self) -> Option<ShutdownLimit> {
        *self.0.borrow()
    }

    /// Waits for the request and returns its limit.
    pub(crate) async fn requested(&mut self) -> ShutdownLimit {
        let limit = self
            .0
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|limit| *limit);
        match limit {
            Some(limit) => limit,
            None => pending().await,
        }
    }

    /// Waits for the deadline of the shutdown.
    pub(crate) async fn over(&mut self, failing: bool) {
        let limit = self.requested().await;
        sleep_until(limit.for_collector(failing)).await;
    }
}
