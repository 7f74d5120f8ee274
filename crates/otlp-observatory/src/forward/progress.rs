//! What became of everything, counted, and what is wrong now, told once.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    SIGNALS,
    exchange::SendError,
    outage::{Current, Outage},
    queue::{AppendError, Batch},
};
use crate::export::Signal;

/// The counts of every signal.
#[derive(Debug, Default)]
pub(super) struct Progress([OfSignal; SIGNALS.len()]);

#[derive(Debug, Default)]
struct OfSignal {
    sent: AtomicU64,
    dropped_requests: AtomicU64,
    rejected: AtomicU64,
    /// Its requests cannot be sent now.
    backend: Outage,
    /// Its requests are dropped, because the backend will never take them.
    refusal: Outage,
    /// Items of its requests are not taken.
    partial: Outage,
    /// Its requests find no place in the queue.
    queue: Outage,
    /// Its queue's files cannot be worked with.
    disk: Outage,
}

/// The `forwarding` object of `/status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// Without a query, which may be a secret.
    pub(crate) endpoint: String,
    pub(crate) queued_bytes: u64,
    pub(crate) limit_bytes: u64,
    pub(crate) sent: Sent,
    /// Requests that found no place in the queue, or that the backend refused for good.
    pub(crate) dropped_requests: u64,
    /// Items that the backend left out of requests it took.
    pub(crate) rejected_items: u64,
    pub(crate) failing_since_unix_nano: Option<String>,
    pub(crate) last_error: Option<String>,
}

/// What the backend has taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Sent {
    pub(crate) spans: u64,
    pub(crate) logs: u64,
    pub(crate) points: u64,
}

impl Progress {
    /// `items` were sent, and the backend did not want `rejected` of them.
    pub(super) fn taken(&self, signal: Signal, items: u64, rejected: u64) {
        let of = self.of(signal);
        let rejected = rejected.min(items);
        of.sent.fetch_add(items - rejected, Relaxed);
        if let Some(ended) = of.backend.ended() {
            telemetry::info!(
                signal = signal.name(),
                after_s = ended.lasted.as_secs_f64(),
                failures = ended.failures,
                "telemetry is forwarded again"
            );
        }
        if let Some(ended) = of.refusal.ended() {
            telemetry::info!(
                signal = signal.name(),
                after_s = ended.lasted.as_secs_f64(),
                refusals = ended.failures,
                "the backend takes telemetry again"
            );
        }
        if rejected == 0 {
            of.partial.ended();
            return;
        }
        let before = of.rejected.fetch_add(rejected, Relaxed);
        if of.partial.failed(&"partial success") {
            telemetry::warn!(
                signal = signal.name(),
                items = before + rejected,
                "the backend does not want some of the telemetry forwarded to it"
            );
        }
    }

    pub(super) fn failed(&self, signal: Signal, error: &SendError) {
        if self.of(signal).backend.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                "telemetry cannot be forwarded; it waits on disk"
            );
        }
    }

    pub(super) fn dropped(&self, signal: Signal, batch: &Batch, error: &SendError) {
        let of = self.of(signal);
        of.dropped_requests.fetch_add(batch.records as u64, Relaxed);
        if of.refusal.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                items = batch.items,
                "telemetry is not forwarded: the backend will not take it"
            );
        }
    }

    pub(super) fn queued(&self, signal: Signal) {
        if let Some(ended) = self.of(signal).queue.ended() {
            telemetry::info!(
                signal = signal.name(),
                after_s = ended.lasted.as_secs_f64(),
                requests = ended.failures,
                "telemetry is queued for the backend again; some requests were left out"
            );
        }
    }

    pub(super) fn not_queued(&self, signal: Signal, error: &AppendError) {
        let of = self.of(signal);
        of.dropped_requests.fetch_add(1, Relaxed);
        if of.queue.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                "telemetry is not queued for the backend until there is room"
            );
        }
    }

    pub(super) fn disk_failed(&self, signal: Signal, error: &impl fmt::Display) {
        if self.of(signal).disk.failed(error) {
            telemetry::warn!(
                signal = signal.name(),
                error = %error,
                "the forwarding queue's files cannot be worked with"
            );
        }
    }

    pub(super) fn disk_works(&self, signal: Signal) {
        if self.of(signal).disk.ended().is_some() {
            telemetry::info!(
                signal = signal.name(),
                "the forwarding queue's files can be worked with again"
            );
        }
    }

    pub(super) fn status(&self, endpoint: String, queued_bytes: u64, limit_bytes: u64) -> Status {
        let sum = |count: fn(&OfSignal) -> &AtomicU64| -> u64 {
            self.0.iter().map(|of| count(of).load(Relaxed)).sum()
        };
        let outages = self.0.iter().flat_map(|of| [&of.backend, &of.refusal]);
        let current: Vec<Current> = outages.filter_map(Outage::current).collect();
        let since = current.iter().map(|outage| outage.since).min();
        let newest = current.into_iter().max_by_key(|outage| outage.last);
        let sent = |signal| self.of(signal).sent.load(Relaxed);
        Status {
            endpoint,
            queued_bytes,
            limit_bytes,
            sent: Sent {
                spans: sent(Signal::Traces),
                logs: sent(Signal::Logs),
                points: sent(Signal::Metrics),
            },
            dropped_requests: sum(|of| &of.dropped_requests),
            rejected_items: sum(|of| &of.rejected),
            failing_since_unix_nano: since.map(unix_nano),
            last_error: newest.map(|outage| outage.error),
        }
    }

    fn of(&self, signal: Signal) -> &OfSignal {
        &self.0[signal as usize]
    }
}

fn unix_nano(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}
