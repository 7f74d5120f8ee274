//! The last step of every signal: sends a request before its deadline, records the result, and honours the
//! retry delay that a collector requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::delivery::Delivery;
use super::self_metrics::ExportCounts;
use super::shutdown::Shutdown;
use crate::destination::{Destination, Request};
use crate::signal::Signal;
use crate::transport::{Retry, SendError, Transport};

/// Maximum retry delay accepted from a collector. A longer delay is probably a configuration mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Destination of one signal, with the time limit and the counts of its exports.
#[derive(Clone, Debug)]
pub(crate) struct ExportTarget {
    pub(crate) signal: Signal,
    pub(crate) destination: Destination,
    /// Time limit of one export, retries included.
    pub(crate) timeout: Duration,
    pub(crate) counts: Arc<ExportCounts>,
}

impl ExportTarget {
    pub(crate) fn new(signal: Signal, destination: Destination, timeout: Duration) -> Self {
        Self {
            signal,
            counts: Arc::new(ExportCounts::new(signal, &destination)),
            destination,
            timeout,
        }
    }
}

/// The exporter of one signal.
#[derive(Debug)]
pub(super) struct Exporter<T> {
    transport: T,
    pub(super) signal: Signal,
    pub(super) delivery: Arc<Delivery>,
    counts: Arc<ExportCounts>,
    timeout: Duration,
    pub(super) shutdown: Shutdown,
    /// End of the retry delay that the collector requested.
    paused_until: Option<Instant>,
}

impl<T: Transport> Exporter<T> {
    pub(super) fn new(
        target: &ExportTarget,
        transport: T,
        delivery: Arc<Delivery>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            transport,
            signal: target.signal,
            delivery,
            counts: Arc::clone(&target.counts),
            timeout: target.timeout,
            shutdown,
            paused_until: None,
        }
    }

    /// Returns the deadline of the shutdown, if it has been requested.
    fn shutdown_deadline(&self) -> Option<Instant> {
        let limit = self.shutdown.limit()?;
        Some(limit.for_collector(self.delivery.is_failing()))
    }

    /// Whether the deadline of the shutdown has passed.
    pub(super) fn is_over(&self) -> bool {
        self.shutdown_deadline()
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Waits for the end of the retry delay; returns false if it ends after the deadline of the shutdown.
    pub(super) async fn open(&mut self) -> bool {
        let Some(until) = self.paused_until else {
            return true;
        };
        tokio::select! {
            () = sleep_until(until) => {}
            limit = self.shutdown.requested() => {
                if until > limit.for_collector(self.delivery.is_failing()) {
                    return false;
                }
                sleep_until(until).await;
            }
        }
        self.paused_until = None;
        true
    }

    /// Returns the deadline of an export that begins now.
    pub(super) fn deadline(&self) -> Instant {
        let deadline = Instant::now() + self.timeout;
        self.shutdown_deadline()
            .map_or(deadline, |limit| deadline.min(limit))
    }

    /// Sends `request` with its `items` entries and records the result.
    pub(super) async fn send(&mut self, request: &Request, items: u64, deadline: Instant) {
        let failing = self.delivery.is_failing();
        let started = Instant::now();
        let result = tokio::select! {
            result = self.transport.send(request, deadline) => result,
            () = self.shutdown.over(failing) => Err(SendError::timeout()),
        };
        if let Err(SendError {
            retry: Retry::After(pause),
            ..
        }) = &result
        {
            self.paused_until = Some(Instant::now() + MAX_RETRY_AFTER.min(*pause));
        }
        self.delivery.record(&result, items);
        self.counts.record(&result, items, started.elapsed());
    }
}
