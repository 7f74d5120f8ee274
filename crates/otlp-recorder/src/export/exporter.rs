//! The last step of each signal's export: sends a request before its deadline, records the result, and honours
//! the retry delay that a collector requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::delivery::Delivery;
use super::flush::{Flushes, MAX_DEADLINE};
use super::self_metrics::ExportCounts;
use super::shutdown::Shutdown;
use crate::destination::{Destination, Request};
use crate::encode::halves;
use crate::signal::Signal;
use crate::transport::{Accepted, Retry, SendError, Transport};

/// Maximum retry delay accepted from a collector. A longer delay is probably a configuration mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Maximum size of a request in bytes. gRPC receivers accept up to 4 MiB by default, including the framing.
pub(crate) const MAX_REQUEST: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Lower bound, in bytes, to which a collector can reduce the maximum size by rejecting requests. Smaller requests
/// would cost too much.
const MIN_MAX_REQUEST: usize = 16 * 1024;

/// Destination of one signal, with the time limit and the counts of its exports.
#[derive(Clone, Debug)]
pub(crate) struct ExportTarget {
    pub(crate) signal: Signal,
    pub(crate) destination: Destination,
    /// Time limit of one export, retries included.
    pub(crate) timeout: Duration,
    pub(crate) counts: Arc<ExportCounts>,
    pub(crate) flushes: Flushes,
}

impl ExportTarget {
    pub(crate) fn new(signal: Signal, destination: Destination, timeout: Duration) -> Self {
        Self {
            signal,
            counts: Arc::new(ExportCounts::new(signal, &destination)),
            destination,
            timeout: timeout.min(MAX_DEADLINE),
            flushes: Flushes::default(),
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
    pub(super) flushes: Flushes,
    /// Deadline of the flush in progress.
    pub(super) flush_deadline: Option<Instant>,
    /// End of the retry delay that the collector requested.
    paused_until: Option<Instant>,
    /// Maximum size of a request in bytes, lowered when the collector rejects a larger one.
    max_request: usize,
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
            flushes: target.flushes.clone(),
            flush_deadline: None,
            paused_until: None,
            max_request: MAX_REQUEST,
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

    /// Waits for the end of the retry delay; returns false if it ends after the deadline of the shutdown or flush.
    pub(super) async fn open(&mut self) -> bool {
        let Some(until) = self.paused_until else {
            return true;
        };
        if self.flush_deadline.is_some_and(|deadline| until > deadline) {
            return false;
        }
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
        let limits = [self.shutdown_deadline(), self.flush_deadline];
        let deadline = Instant::now() + self.timeout;
        limits.into_iter().flatten().fold(deadline, Instant::min)
    }

    /// Sends `request`, which has `items` spans, data points or log records, and records the result. A request that
    /// is too large is sent in parts; `deadline` applies to the first one.
    pub(super) async fn send(&mut self, request: Request, items: u64, deadline: Instant) {
        let mut deadline = deadline;
        let mut in_flight = self.counts.begin(items);
        let mut parts = vec![(request, items)];
        while let Some((request, items)) = parts.pop() {
            let size = request.protobuf().len();
            if size > self.max_request && split(&request, items, &mut parts) {
                continue;
            }
            let started = Instant::now();
            let result = if size > MAX_REQUEST {
                Err(too_large(size))
            } else {
                self.attempt(&request, deadline).await
            };
            deadline = self.deadline();
            if let Err(SendError {
                retry: Retry::Smaller(min),
                ..
            }) = &result
                && size > *min
                && split(&request, items, &mut parts)
            {
                self.max_request = self.max_request.min(size / 2).max(MIN_MAX_REQUEST);
                continue;
            }
            self.delivery.record(&result, items);
            self.counts.record(&result, items, started.elapsed());
            in_flight.finish(items);
            if !parts.is_empty() && !self.open().await {
                let items = parts.drain(..).map(|(_, items)| items).sum();
                self.delivery.failed(
                    items,
                    "the collector's retry delay ends after the deadline of the shutdown or flush",
                );
            }
        }
    }

    async fn attempt(&mut self, request: &Request, deadline: Instant) -> Result<Accepted, SendError> {
        let failing = self.delivery.is_failing();
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
        result
    }
}

/// Pushes the halves of `request` onto `parts`, with the first half on top. Returns false if `request` cannot be
/// split.
fn split(request: &Request, items: u64, parts: &mut Vec<(Request, u64)>) -> bool {
    let signal = request.signal();
    let Some(halves) = halves(signal, request.protobuf(), items) else {
        return false;
    };
    let [first, second] = halves.map(|(protobuf, items)| (Request::new(signal, protobuf), items));
    parts.extend([second, first]);
    true
}

/// Returns the error for a single entry that exceeds the maximum size of a request.
fn too_large(size: usize) -> SendError {
    SendError {
        error_type: "too_large".into(),
        message: format!("an entry of {size} bytes exceeds the maximum of {MAX_REQUEST} and is dropped"),
        retry: Retry::Never,
    }
}
