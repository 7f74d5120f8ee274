//! Rate limit and time limits of a registered task, which remote control may change at run time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{lock::Lock, message::TimeLimit, rate_limit::RateLimit, task::TaskOptions};

/// Limits and start count of a registered task.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Number of runs started.
    pub total: AtomicU64,
    time: Lock<TimeLimit>,
    /// Whether a rate limit is set. Tasks without a rate limit read only this flag.
    has_rate: AtomicBool,
    /// Rate limit, and the earliest start of the next run.
    rate: Lock<Option<(RateLimit, Instant)>>,
    changed: Notify,
}

impl Limits {
    pub(super) fn new(options: &TaskOptions) -> Self {
        let limits = Self {
            time: Lock::new(options.time_limit),
            ..Self::default()
        };
        limits.set_rate(options.rate_limit.clone());
        limits
    }

    /// Returns the time limits, which a message may override.
    pub(super) fn time_limit(&self) -> TimeLimit {
        *self.time.lock()
    }

    pub(super) fn set_time_limit(&self, limit: TimeLimit) {
        *self.time.lock() = limit;
    }

    pub(super) fn has_rate(&self) -> bool {
        self.has_rate.load(Ordering::Acquire)
    }

    pub(super) fn rate(&self) -> Option<RateLimit> {
        self.rate.lock().as_ref().map(|(rate, _)| rate.clone())
    }

    pub(super) fn set_rate(&self, rate: Option<RateLimit>) {
        let mut current = self.rate.lock();
        self.has_rate.store(rate.is_some(), Ordering::Release);
        *current = rate.map(|rate| (rate, Instant::now()));
        drop(current);
        self.changed.notify_waiters();
    }

    /// Waits until the rate limit allows another run. A change to the limit applies to waiting runs too.
    pub(super) async fn acquire(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the reservation, because a change in between must be noticed.
            changed.as_mut().enable();
            let Some(at) = self.reserve() else { return };
            tokio::select! {
                biased;
                () = sleep_until(at) => return,
                () = changed => {}
            }
        }
    }

    /// Reserves the next start and returns its time, or `None` without a rate limit. Starts are one interval
    /// apart; unused starts do not accumulate.
    fn reserve(&self) -> Option<Instant> {
        let mut current = self.rate.lock();
        let (rate, next) = current.as_mut()?;
        let at = (*next).max(Instant::now());
        *next = at + rate.interval;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_start_one_interval_apart_and_a_change_applies_immediately() {
        let rate: RateLimit = "10/s".parse().unwrap();
        let limits = Limits::new(&TaskOptions::new().rate_limit(rate));
        let start = Instant::now();
        for _ in 0..5 {
            limits.acquire().await;
        }
        let passed = start.elapsed();
        assert!((400..420).contains(&passed.as_millis()), "{passed:?}");
        limits.set_rate(RateLimit::parse("1/h").unwrap());
        limits.acquire().await;
        let waiting = limits.acquire();
        tokio::pin!(waiting);
        tokio::select! {
            () = &mut waiting => panic!("the rate limit did not delay the run"),
            // The test's clock is paused and advances to this time once nothing else is due.
            () = tokio::time::sleep(Duration::from_secs(60)) => limits.set_rate(None),
        }
        waiting.await;
        let passed = start.elapsed();
        assert!((60..62).contains(&passed.as_secs()), "{passed:?}");
    }
}
