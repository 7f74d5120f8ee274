//! How much was received and refused since the start, for `/status`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::export::Signal;

/// Counters that are only added to. Each is exact; together they are of about the same moment.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    spans: AtomicU64,
    logs: AtomicU64,
    points: AtomicU64,
    refused_requests: AtomicU64,
}

impl Counts {
    /// Spans that were accepted.
    pub(crate) fn spans(&self) -> u64 {
        self.spans.load(Relaxed)
    }

    /// Log records that were accepted.
    pub(crate) fn logs(&self) -> u64 {
        self.logs.load(Relaxed)
    }

    /// Points of metrics that were accepted.
    pub(crate) fn points(&self) -> u64 {
        self.points.load(Relaxed)
    }

    /// Requests that were answered with an error, whatever was wrong.
    pub(crate) fn refused_requests(&self) -> u64 {
        self.refused_requests.load(Relaxed)
    }

    pub(super) fn received(&self, signal: Signal, items: usize) {
        let counter = match signal {
            Signal::Traces => &self.spans,
            Signal::Logs => &self.logs,
            Signal::Metrics => &self.points,
        };
        counter.fetch_add(items as u64, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused_requests.fetch_add(1, Relaxed);
    }
}
