//! One memory budget for all signals. Nothing is evicted while their total is within the limit. Above it, the oldest
//! telemetry is evicted first, whatever its signal, but a signal keeps a quarter of the limit: however many log records
//! arrive, they do not evict the last traces.

use super::{fair_lock::FairLock, logs::Logs, metrics::Metrics, traces::Traces};

/// Inverse of the fraction of the limit that a signal keeps. It exceeds the number of signals, so that above the limit,
/// at least one signal uses more than its fraction.
const RESERVED_DIVISOR: usize = 4;

/// Inverse of the fraction of the limit that a single item may use. Larger items are rejected.
const ITEM_DIVISOR: usize = 8;

/// Returns the maximum size of a single item or resource, in bytes.
pub(crate) const fn max_item(limit: usize) -> usize {
    limit / ITEM_DIVISOR
}

/// Telemetry of a signal, from which the oldest can be evicted.
pub(crate) trait Evict {
    /// Returns the memory use in bytes.
    fn bytes(&self) -> usize;

    /// Returns the time of arrival of the oldest telemetry; `None` if there is none.
    fn oldest(&self) -> Option<u64>;

    /// Removes the oldest telemetry.
    fn evict_oldest(&mut self);
}

/// Evicts telemetry until the total memory use is at most `limit`.
pub(crate) fn evict(
    limit: usize,
    traces: &FairLock<Traces>,
    logs: &FairLock<Logs>,
    metrics: &FairLock<Metrics>,
) {
    // The locks are never held at the same time, so that readers of several signals cannot cause a deadlock.
    let mut used = [traces.read().bytes(), logs.read().bytes(), metrics.read().bytes()];
    if used.iter().sum::<usize>() <= limit {
        return;
    }
    let mut oldest = [
        traces.read().oldest(),
        logs.read().oldest(),
        metrics.read().oldest(),
    ];
    while used.iter().sum::<usize>() > limit {
        let may_shrink =
            |&signal: &usize| oldest[signal].is_some() && used[signal] > limit / RESERVED_DIVISOR;
        let Some(signal) = (0..3).filter(may_shrink).min_by_key(|&signal| oldest[signal]) else {
            break;
        };
        let others = used.iter().sum::<usize>() - used[signal];
        let next = (0..3).filter(|&other| other != signal && may_shrink(&other));
        let until = next.filter_map(|other| oldest[other]).min().unwrap_or(u64::MAX);
        let share = (limit - others.min(limit)).max(limit / RESERVED_DIVISOR);
        (used[signal], oldest[signal]) = match signal {
            0 => shrink(traces, share, until),
            1 => shrink(logs, share, until),
            _ => shrink(metrics, share, until),
        };
    }
}

/// Evicts the oldest telemetry until the memory use is at most `share`, or the remaining telemetry arrived after `until`.
///
/// Returns the memory use and the time of arrival of the oldest telemetry.
fn shrink<S: Evict>(signal: &FairLock<S>, share: usize, until: u64) -> (usize, Option<u64>) {
    let mut signal = signal.write();
    loop {
        signal.evict_oldest();
        let (bytes, oldest) = (signal.bytes(), signal.oldest());
        if bytes <= share || oldest.is_none_or(|oldest| oldest > until) {
            return (bytes, oldest);
        }
    }
}
