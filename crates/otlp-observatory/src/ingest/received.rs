//! Counts of accepted items and rejected requests since start-up, for `/status`.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use crate::export::{Counts, Signal};

/// Maximum number of reasons that are stored.
const MAX_REASONS: usize = 8;

/// Maximum length of a reason in characters.
const MAX_REASON_CHARS: usize = 200;

/// Counts of accepted items and rejected requests.
#[derive(Debug, Default)]
pub(crate) struct Received {
    accepted: [AtomicU64; Signal::ALL.len()],
    refused: [AtomicU64; Signal::ALL.len()],
    delayed_requests: AtomicU64,
    rejected_requests: AtomicU64,
    reasons: Mutex<Vec<Reason>>,
}

/// Requests that were rejected for the same reason.
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    pub(crate) text: String,
    pub(crate) requests: u64,
    pub(crate) last: SystemTime,
}

impl Received {
    /// Returns the numbers of accepted spans, log records and metric points.
    pub(crate) fn counts(&self) -> Counts {
        Counts::of(|signal| self.accepted[signal as usize].load(Relaxed))
    }

    /// Returns the numbers of items that were removed from accepted requests.
    pub(crate) fn refused(&self) -> Counts {
        Counts::of(|signal| self.refused[signal as usize].load(Relaxed))
    }

    /// Returns the number of accepted requests that waited for room in the queue.
    pub(crate) fn delayed_requests(&self) -> u64 {
        self.delayed_requests.load(Relaxed)
    }

    /// Returns the number of rejected requests, whatever the reason.
    pub(crate) fn rejected_requests(&self) -> u64 {
        self.rejected_requests.load(Relaxed)
    }

    /// Returns the latest reasons for rejections, the most recent first.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().rev().cloned().collect()
    }

    pub(super) fn count_accepted(&self, signal: Signal, items: usize) {
        self.accepted[signal as usize].fetch_add(items as u64, Relaxed);
    }

    pub(super) fn count_delayed(&self) {
        self.delayed_requests.fetch_add(1, Relaxed);
    }

    pub(super) fn count_refused(&self, signal: Signal, items: usize) {
        self.refused[signal as usize].fetch_add(items as u64, Relaxed);
    }

    /// Counts a rejected request. The reason may quote the request, so e-mail addresses in it are masked.
    pub(crate) fn count_rejected(&self, reason: &str) {
        self.rejected_requests.fetch_add(1, Relaxed);
        let text: String = reason.chars().take(MAX_REASON_CHARS).collect();
        let text = telemetry::mask(&text).into_owned();
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reasons.iter().position(|known| known.text == text);
        let requests = match known {
            Some(known) => reasons.remove(known).requests,
            None if reasons.len() == MAX_REASONS => {
                reasons.remove(0);
                0
            }
            None => 0,
        };
        reasons.push(Reason {
            text,
            requests: requests + 1,
            last: SystemTime::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_reasons_are_counted_and_masked() {
        let received = Received::default();
        for number in 0..20 {
            received.count_rejected(&format!("reason {number}"));
        }
        received.count_rejected("reason 13");
        received.count_rejected(&format!("invalid value alice@mail.example{}", "x".repeat(1000)));
        let reasons = received.reasons();
        assert_eq!((received.rejected_requests(), reasons.len()), (22, MAX_REASONS));
        assert!(reasons[0].text.starts_with("invalid value al***@"), "{reasons:?}");
        assert!(reasons[0].text.len() <= MAX_REASON_CHARS);
        assert_eq!((reasons[1].text.as_str(), reasons[1].requests), ("reason 13", 2));
        assert_eq!((reasons[2].text.as_str(), reasons[2].requests), ("reason 19", 1));
    }
}
