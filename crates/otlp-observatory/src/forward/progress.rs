//! Counts of forwarded, dropped and rejected telemetry, and the failures of forwarding.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    client::RequestError,
    failures::{Failures, Outage},
    queue::{AppendError, Batch},
};
use crate::export::{Counts, Signal};

/// Counts and failures of every signal.
#[derive(Debug)]
pub(super) struct Progress([SignalProgress; Signal::ALL.len()]);

#[derive(Debug)]
pub(super) struct SignalProgress {
    sent: AtomicU64,
    dropped_requests: AtomicU64,
    rejected_items: AtomicU64,
    /// Failures to send a request, which is retried.
    pub(super) sending: Failures,
    /// Requests that the backend rejected, which are dropped.
    drops: Failures,
    /// Requests that the backend accepted without some of their items.
    rejections: Failures,
    /// Failures to queue a request, which is dropped.
    pub(super) queueing: Failures,
    /// Failures to read or write the files of the queue.
    pub(super) disk: Failures,
}

/// The `forwarding` object of `/status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// Endpoint without its user, path and query, which may contain a secret.
    pub(crate) endpoint: String,
    pub(crate) queued_bytes: u64,
    pub(crate) limit_bytes: u64,
    /// Items that the backend accepted.
    pub(crate) sent: Counts,
    /// Requests that could not be queued, or that the backend rejected.
    pub(crate) dropped_requests: u64,
    /// Items that the backend rejected from requests it accepted.
    pub(crate) rejected_items: u64,
    pub(crate) failing_since_unix_nano: Option<String>,
    pub(crate) last_error: Option<String>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self(Signal::ALL.map(SignalProgress::new))
    }

    pub(super) fn of(&self, signal: Signal) -> &SignalProgress {
        &self.0[signal as usize]
    }

    pub(super) fn status(&self, endpoint: String, queued_bytes: u64, limit_bytes: u64) -> Status {
        let sum = |count: fn(&SignalProgress) -> &AtomicU64| -> u64 {
            self.0.iter().map(|progress| count(progress).load(Relaxed)).sum()
        };
        let failures = self
            .0
            .iter()
            .flat_map(|progress| [&progress.sending, &progress.drops]);
        let outages: Vec<Outage> = failures.filter_map(Failures::outage).collect();
        let since = outages.iter().map(|outage| outage.since).min();
        let newest = outages.into_iter().max_by_key(|outage| outage.last_failure);
        Status {
            endpoint,
            queued_bytes,
            limit_bytes,
            sent: Counts::of(|signal| self.of(signal).sent.load(Relaxed)),
            dropped_requests: sum(|progress| &progress.dropped_requests),
            rejected_items: sum(|progress| &progress.rejected_items),
            failing_since_unix_nano: since.map(unix_nano),
            last_error: newest.map(|outage| outage.last_error),
        }
    }
}

impl SignalProgress {
    fn new(signal: Signal) -> Self {
        let failures = |failing, working| Failures::new(signal, failing, working);
        Self {
            sent: AtomicU64::new(0),
            dropped_requests: AtomicU64::new(0),
            rejected_items: AtomicU64::new(0),
            sending: failures(
                "cannot forward telemetry; it is kept on disk and sent later",
                "forwarding works again",
            ),
            drops: failures(
                "dropped telemetry that the backend rejected",
                "the backend accepts telemetry again",
            ),
            rejections: failures(
                "the backend rejects some items of the requests it accepts",
                "the backend accepts all items again",
            ),
            queueing: failures(
                "cannot queue telemetry for forwarding; requests are dropped",
                "telemetry is queued for forwarding again; some requests were dropped",
            ),
            disk: failures(
                "cannot read or write the files of the forwarding queue",
                "the files of the forwarding queue can be read and written again",
            ),
        }
    }

    /// Records that the backend accepted a request with `items`, except for `rejected` items.
    pub(super) fn accepted(&self, items: u64, rejected: u64) {
        let rejected = rejected.min(items);
        self.sent.fetch_add(items - rejected, Relaxed);
        self.rejected_items.fetch_add(rejected, Relaxed);
        self.sending.succeeded();
        self.drops.succeeded();
        match rejected {
            0 => self.rejections.succeeded(),
            _ => self.rejections.failed(&"partial success", Some(rejected)),
        }
    }

    /// Records that the backend rejected `batch`, which is not retried.
    pub(super) fn dropped(&self, batch: &Batch, error: &RequestError) {
        self.dropped_requests.fetch_add(batch.records as u64, Relaxed);
        self.drops.failed(error, Some(batch.items));
    }

    /// Records that a request could not be queued, and is dropped.
    pub(super) fn not_queued(&self, error: &AppendError) {
        self.dropped_requests.fetch_add(1, Relaxed);
        self.queueing.failed(error, None);
    }
}

fn unix_nano(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}
