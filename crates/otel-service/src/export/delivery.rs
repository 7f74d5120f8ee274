//! Whether a signal reaches its collector, told to the log once when an outage starts and once when it is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::mask::mask;
use crate::otlp::{Accepted, SendError};

/// The target of the export thread's own log events, which go to standard output only.
pub(crate) const TARGET: &str = "otel_service::export";

/// The most characters of a collector's own words that are repeated.
const LONGEST_MESSAGE: usize = 300;

/// Whether one signal reaches its collector.
#[derive(Debug)]
pub(crate) struct Delivery {
    signal: &'static str,
    failing: AtomicBool,
    lost: AtomicU64,
}

impl Delivery {
    pub(crate) fn new(signal: &'static str) -> Self {
        Self {
            signal,
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Whether the last export failed, as a whole or in part.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Takes the outcome of one export of `items` entries.
    pub(crate) fn note(&self, result: &Result<Accepted, SendError>, items: u64) {
        match result {
            Ok(accepted) if accepted.rejected == 0 => self.succeeded(),
            Ok(accepted) => {
                let message = accepted.message.as_deref().unwrap_or("no reason given");
                self.failed(
                    accepted.rejected,
                    &format!("the collector rejected {}: {message}", accepted.rejected),
                );
            }
            Err(error) => self.failed(items, &error.to_string()),
        }
    }

    /// Counts `items` as lost; the first time since all was well it is told.
    pub(crate) fn failed(&self, items: u64, reason: &str) {
        self.lost.fetch_add(items, Ordering::AcqRel);
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                target: TARGET,
                signal = self.signal,
                error = %presentable(reason),
                "telemetry cannot be delivered; it is dropped until the collector answers"
            );
        }
    }

    fn succeeded(&self) {
        if self.failing.swap(false, Ordering::AcqRel) {
            let lost = self.lost.swap(0, Ordering::AcqRel);
            tracing::info!(
                target: TARGET,
                signal = self.signal,
                lost,
                "telemetry is delivered again"
            );
        }
    }
}

/// A collector may quote what it was sent, at length.
fn presentable(message: &str) -> String {
    mask(message).chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Told;
    use super::*;

    fn failed() -> Result<Accepted, SendError> {
        Err(SendError {
            error_type: "503",
            retry_after: None,
            message: "HTTP 503".to_owned(),
        })
    }

    fn rejected(rejected: u64) -> Result<Accepted, SendError> {
        Ok(Accepted {
            rejected,
            message: Some("no room for alice@example.com".to_owned()),
        })
    }

    #[test]
    fn an_outage_is_told_once_and_with_what_was_lost_when_it_is_over() {
        let (told, delivery) = (Told::new(), Delivery::new("traces"));
        for _ in 0..3 {
            delivery.note(&failed(), 10);
            assert!(delivery.is_failing());
        }
        for _ in 0..3 {
            delivery.note(&Ok(Accepted::default()), 10);
            assert!(!delivery.is_failing());
        }
        assert_eq!(told.count("cannot be delivered"), 1);
        assert_eq!(told.count("lost=30"), 1);
        delivery.note(&failed(), 7);
        delivery.note(&Ok(Accepted::default()), 10);
        assert_eq!(told.count("cannot be delivered"), 2);
        assert_eq!(told.count("lost=7"), 1);
    }

    #[test]
    fn a_partial_success_loses_what_was_rejected() {
        let (told, delivery) = (Told::new(), Delivery::new("logs"));
        delivery.note(&rejected(3), 10);
        assert!(delivery.is_failing());
        delivery.note(&rejected(0), 10);
        assert_eq!(told.count("rejected 3: no room for al***@example.com"), 1);
        assert_eq!(told.count("lost=3"), 1);
    }
}
