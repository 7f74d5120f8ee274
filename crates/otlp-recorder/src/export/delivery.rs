//! The delivery state of a signal. An outage is logged once when it begins and once when it ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::log_target::LOG_TARGET;
use crate::signal::Signal;
use crate::text::{Redact, TextRules};
use crate::transport::{Accepted, SendError};

/// Maximum length of a logged reason in characters. A collector may quote exported data.
const MAX_REASON: usize = 300;

/// The delivery state of one signal.
#[derive(Debug)]
pub(super) struct Delivery {
    signal: Signal,
    rules: TextRules,
    failing: AtomicBool,
    lost: AtomicU64,
}

impl Delivery {
    pub(super) fn new(signal: Signal, redact: Option<Redact>) -> Self {
        Self {
            signal,
            rules: TextRules {
                redact,
                value_limit: Some(MAX_REASON),
            },
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Whether the last export failed, entirely or in part.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Records the result of one export of `items` entries.
    pub(super) fn record(&self, result: &Result<Accepted, SendError>, items: u64) {
        match result {
            Ok(accepted) if accepted.rejected == 0 => self.succeeded(),
            Ok(accepted) => {
                let rejected = accepted.rejected.min(items);
                let message = accepted.message.as_deref().unwrap_or("no reason given");
                self.failed(rejected, &format!("the collector rejected {rejected}: {message}"));
            }
            Err(error) => self.failed(items, &error.message),
        }
    }

    /// Counts `items` as lost, and logs the first failure after a success.
    pub(super) fn failed(&self, items: u64, reason: &str) {
        self.lost.fetch_add(items, Ordering::AcqRel);
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::event!(
                target: LOG_TARGET,
                tracing::Level::WARN,
                telemetry.signal = self.signal.name(),
                error = %self.presentable(reason),
                "telemetry cannot be delivered and is dropped until the collector responds; check the endpoint"
            );
        }
    }

    fn succeeded(&self) {
        if self.failing.swap(false, Ordering::AcqRel) {
            let lost = self.lost.swap(0, Ordering::AcqRel);
            tracing::event!(
                target: LOG_TARGET,
                tracing::Level::INFO,
                telemetry.signal = self.signal.name(),
                outage.lost = lost,
                "telemetry is delivered again"
            );
        }
    }

    fn presentable(&self, reason: &str) -> String {
        let redacted = self.rules.redacted(reason);
        self.rules.limited(&redacted).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::LogEvents;
    use super::*;
    use crate::text::tests::redact_mail;
    use crate::transport::Retry;

    fn failed() -> Result<Accepted, SendError> {
        Err(SendError {
            error_type: "503".into(),
            message: "HTTP 503".to_owned(),
            retry: Retry::Never,
        })
    }

    fn rejected(rejected: u64) -> Result<Accepted, SendError> {
        Ok(Accepted {
            rejected,
            message: Some("no room for alice@example.com".to_owned()),
        })
    }

    #[test]
    fn an_outage_is_logged_at_its_start_and_with_its_losses_at_its_end() {
        let (log, delivery) = (LogEvents::new(), Delivery::new(Signal::Traces, Some(redact_mail)));
        for _ in 0..3 {
            delivery.record(&failed(), 10);
            assert!(delivery.is_failing());
        }
        for _ in 0..3 {
            delivery.record(&Ok(Accepted::default()), 10);
            assert!(!delivery.is_failing());
        }
        assert_eq!(log.count("cannot be delivered"), 1);
        assert_eq!(log.count("lost=30"), 1);
        delivery.record(&failed(), 7);
        delivery.record(&Ok(Accepted::default()), 10);
        assert_eq!(log.count("cannot be delivered"), 2);
        assert_eq!(log.count("lost=7"), 1);
    }

    #[test]
    fn a_partial_success_counts_the_rejected_items_as_lost() {
        let (log, delivery) = (LogEvents::new(), Delivery::new(Signal::Logs, Some(redact_mail)));
        delivery.record(&rejected(3), 10);
        assert!(delivery.is_failing());
        delivery.record(&rejected(0), 10);
        assert_eq!(log.count("rejected 3: no room for al***@example.com"), 1);
        assert_eq!(log.count("lost=3"), 1);
        // No more items than were sent.
        delivery.record(&rejected(u64::MAX), 10);
        delivery.record(&rejected(u64::MAX), 10);
        delivery.record(&rejected(0), 10);
        assert_eq!(log.count("lost=20"), 1);
    }

    #[test]
    fn a_reason_is_redacted_before_it_is_shortened() {
        let delivery = Delivery::new(Signal::Logs, Some(redact_mail));
        let reason = "ä".repeat(MAX_REASON - 2) + "alice@example.com";
        assert_eq!(delivery.presentable(&reason), "ä".repeat(MAX_REASON - 2) + "al");
        assert_eq!(
            delivery
                .presentable(&("alice@example.com".to_owned() + &reason))
                .chars()
                .count(),
            MAX_REASON
        );
    }
}
