//! Counts what was sent, dropped and rejected, and logs the beginning and end of each kind of failure.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    exchange::SendError,
    failures::{Failures, Outage},
    queue::{AppendError, Batch},
};
use crate::export::{Counts, Signal};

/// Counts and failures of every signal.
#[derive(Debug, Default)]
pub(super) struct Progress([SignalProgress; Signal::ALL.len()]);

#[derive(Debug, Default)]
struct SignalProgress {
    sent: AtomicU64,
    dropped_requests: AtomicU64,
    rejected_items: AtomicU64,
    /// Requests cannot be sent at present.
    sending: Failures,
    /// The backend refuses requests, which are dropped.
    refusals: Failures,
    /// The backend accepts requests but rejects some of their items.
    rejections: Failures,
    /// Requests cannot be queued.
    queueing: Failures,
    /// The queue's files cannot be read or written.
    disk: Failures,
}

/// The `forwarding` object of `/status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// Endpoint without its query, which may be a secret.
    pub(crate) endpoint: String,
    pub(crate) queued_bytes: u64,
    pub(crate) limit_bytes: u64,
    /// Items that the backend accepted.
    pub(crate) sent: Counts,
    /// Requests that could not be queued, or that the backend refused.
    pub(crate) dropped_requests: u64,
    /// Items that the backend rejected from requests it accepted.
    pub(crate) rejected_items: u64,
    pub(crate) failing_since_unix_nano: Option<String>,
    pub(crate) last_error: Option<String>,
}

impl Progress {
    /// Records that the backend accepted a request with `items`, of which it rejected `rejected`.
    pub(super) fn accepted(&self, signal: Signal, items: u64, rejected: u64) {
        let progress = self.of(signal);
        let rejected = rejected.min(items);
        progress.sent.fetch_add(items - rejected, Relaxed);
        if let Some(outage) = progress.sending.succeeded() {
            telemetry::info!(
                signal = signal.name(),
                after_s = outage.began.elapsed().as_secs_f64(),
                failures = outage.failures,
                "forwarding works again"
            );
        }
        if let Some(outage) = progress.refusals.succeeded() {
            telemetry::info!(
                signal = signal.name(),
                after_s = outage.began.elapsed().as_secs_f64(),
                refusals = outage.failures,
                "the backend accepts telemetry again"
            );
        }
        if rejected == 0 {
            progress.rejections.succeeded();
            return;
        }
        let before = progress.rejected_items.fetch_add(rejected, Relaxed);
        if progress.rejections.failed(&"partial success") {
            telemetry::warn!(
                signal = signal.name(),
                items = before + rejected,
                "the backend rejects some of the telemetry forwarded to it"
            );
        }
    }

    /// Records that a request could not be sent, and will be retried.
    pub(super) fn failed(&self, signal: Signal, error: &SendError) {
        if self.of(signal).sending.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                "cannot forward telemetry; it is kept on disk and sent later"
            );
        }
    }

    /// Records that the backend refused `batch`, which is not retried.
    pub(super) fn dropped(&self, signal: Signal, batch: &Batch, error: &SendError) {
        let progress = self.of(signal);
        progress.dropped_requests.fetch_add(batch.records as u64, Relaxed);
        if progress.refusals.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                items = batch.items,
                "dropped telemetry that the backend refuses"
            );
        }
    }

    /// Records that a request was queued.
    pub(super) fn queued(&self, signal: Signal) {
        if let Some(outage) = self.of(signal).queueing.succeeded() {
            telemetry::info!(
                signal = signal.name(),
                after_s = outage.began.elapsed().as_secs_f64(),
                requests = outage.failures,
                "telemetry is queued for forwarding again; some requests were dropped"
            );
        }
    }

    /// Records that a request could not be queued, and is dropped.
    pub(super) fn not_queued(&self, signal: Signal, error: &AppendError) {
        let progress = self.of(signal);
        progress.dropped_requests.fetch_add(1, Relaxed);
        if progress.queueing.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                "cannot queue telemetry for forwarding; requests are dropped"
            );
        }
    }

    /// Records that a file of the queue could not be read or written.
    pub(super) fn disk_failed(&self, signal: Signal, error: &impl fmt::Display) {
        if self.of(signal).disk.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                "cannot read or write the files of the forwarding queue"
            );
        }
    }

    /// Records that the files of the queue were read or written.
    pub(super) fn disk_works(&self, signal: Signal) {
        if self.of(signal).disk.succeeded().is_some() {
            telemetry::info!(
                signal = signal.name(),
                "the files of the forwarding queue can be read and written again"
            );
        }
    }

    pub(super) fn status(&self, endpoint: String, queued_bytes: u64, limit_bytes: u64) -> Status {
        let sum = |count: fn(&SignalProgress) -> &AtomicU64| -> u64 {
            self.0.iter().map(|progress| count(progress).load(Relaxed)).sum()
        };
        let failures = self
            .0
            .iter()
            .flat_map(|progress| [&progress.sending, &progress.refusals]);
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

    fn of(&self, signal: Signal) -> &SignalProgress {
        &self.0[signal as usize]
    }
}

fn unix_nano(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}
