//! Logs a condition that makes many calls fail, such as an outage of the database: one warning when it begins,
//! and one record with the number of failures when it ends.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// Time without failures after which an outage is over, if a call of a kind that failed has succeeded. Spans the
/// time in which connections fail and recover one after the other.
const QUIET: Duration = Duration::from_secs(2);

/// Time without failures after which an outage is over, if a call of any kind has succeeded. Longer than the
/// back-off of background jobs, whose calls may still fail.
const LONG_QUIET: Duration = Duration::from_secs(10);

/// Maximum number of kinds of failed calls that are recorded for an outage.
const MAX_KINDS: usize = 16;

/// Log of the outages of one service.
#[derive(Debug)]
pub struct OutageLog {
    began: &'static str,
    ended: &'static str,
    /// Whether an outage lasts until a call has succeeded.
    until_success: bool,
    outage: Mutex<Option<Outage>>,
    /// Whether there is an outage. Successful calls normally read only this flag.
    ongoing: AtomicBool,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    failures: u64,
    last_failure: Instant,
    /// Kinds of failed calls. Calls of other kinds may succeed during the outage.
    kinds: Vec<&'static str>,
    /// First success since the last failure.
    succeeded: Option<Instant>,
    /// Whether a call of one of `kinds` has succeeded since the last failure.
    recovered: bool,
}

impl Outage {
    fn is_over(&self, now: Instant, until_success: bool) -> bool {
        let quiet = now - self.last_failure;
        if self.recovered || !until_success {
            quiet >= QUIET
        } else {
            self.succeeded.is_some() && quiet >= LONG_QUIET
        }
    }
}

impl OutageLog {
    /// Creates the log of a service whose successful calls are passed to [`Self::record_success`]. The messages
    /// are logged at the beginning and the end of an outage.
    #[must_use]
    pub fn new(began: &'static str, ended: &'static str) -> Arc<Self> {
        Self::lasting(began, ended, true)
    }

    /// Like [`Self::new`], but an outage ends after two seconds without a failure.
    #[must_use]
    pub fn without_successes(began: &'static str, ended: &'static str) -> Arc<Self> {
        Self::lasting(began, ended, false)
    }

    fn lasting(began: &'static str, ended: &'static str, until_success: bool) -> Arc<Self> {
        Arc::new(Self {
            began,
            ended,
            until_success,
            outage: Mutex::new(None),
            ongoing: AtomicBool::new(false),
        })
    }

    /// Counts a failed call, and logs the first one. Call it within a Tokio runtime.
    pub fn record_failure(self: &Arc<Self>, kind: &'static str, reason: &str) {
        let now = Instant::now();
        let mut guard = self.outage();
        let begins = guard.is_none();
        let outage = guard.get_or_insert_with(|| Outage {
            since: now,
            failures: 0,
            last_failure: now,
            kinds: Vec::new(),
            succeeded: None,
            recovered: false,
        });
        outage.failures += 1;
        outage.last_failure = now;
        outage.succeeded = None;
        outage.recovered = false;
        if outage.kinds.len() < MAX_KINDS && !outage.kinds.contains(&kind) {
            outage.kinds.push(kind);
        }
        self.ongoing.store(true, Ordering::Relaxed);
        drop(guard);
        if begins {
            telemetry::warn!(reason, "{}", self.began);
            tokio::spawn(self.clone().log_end());
        }
    }

    /// Records a successful call.
    pub fn record_success(&self, kind: &'static str) {
        if self.ongoing.load(Ordering::Relaxed)
            && let Some(outage) = &mut *self.outage()
        {
            outage.succeeded.get_or_insert_with(Instant::now);
            outage.recovered |= outage.kinds.contains(&kind);
        }
    }

    /// Waits for the end of the outage and logs it.
    async fn log_end(self: Arc<Self>) {
        let (failures, outage_seconds) = loop {
            sleep(QUIET).await;
            let mut outage = self.outage();
            let over = outage.take_if(|outage| outage.is_over(Instant::now(), self.until_success));
            if let Some(over) = over {
                self.ongoing.store(false, Ordering::Relaxed);
                let end = over.succeeded.unwrap_or(over.last_failure);
                break (over.failures, (end - over.since).as_secs_f64());
            }
        };
        telemetry::info!(
            outage.failures = failures,
            outage.duration = outage_seconds,
            "{}",
            self.ended
        );
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the outage would be over after this time without a further call.
    fn would_end_after(log: &OutageLog, quiet: Duration) -> bool {
        let outage = log.outage();
        let outage = outage.as_ref().unwrap();
        assert!(!outage.is_over(outage.last_failure, log.until_success));
        outage.is_over(outage.last_failure + quiet, log.until_success)
    }

    #[tokio::test]
    async fn an_outage_lasts_until_a_failed_call_succeeds_and_no_call_fails_afterwards() {
        let log = OutageLog::new("down", "up");
        for _ in 0..50 {
            log.record_failure("read", "refused");
        }
        assert!(!would_end_after(&log, LONG_QUIET));
        log.record_success("ping");
        assert!(!would_end_after(&log, QUIET), "no read has succeeded");
        assert!(would_end_after(&log, LONG_QUIET));
        log.record_success("read");
        log.record_failure("write", "refused");
        assert!(!would_end_after(&log, LONG_QUIET), "calls still fail");
        log.record_success("read");
        assert!(would_end_after(&log, QUIET));
        assert_eq!(log.outage().as_ref().unwrap().failures, 51);
    }

    #[tokio::test]
    async fn without_successes_an_outage_ends_with_its_failures() {
        let log = OutageLog::without_successes("full", "free");
        log.record_failure("hash", "full");
        assert!(would_end_after(&log, QUIET));
    }
}
