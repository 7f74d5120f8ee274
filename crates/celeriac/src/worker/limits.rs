//! Rate limit and time limits of a registered task, which remote control may change at run time.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{lock::Lock, message::TimeLimit, task::TaskOptions};

/// Limits and start count of a registered task.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Number of runs started.
    pub total: AtomicU64,
    time: Lock<TimeLimit>,
    /// Whether a rate limit is set. Tasks without a rate limit read only this flag.
    has_rate: AtomicBool,
    /// Rate limit, and the earliest start of the next run.
    rate: Lock<Option<(Rate, Instant)>>,
    changed: Notify,
}

impl Limits {
    pub(super) fn new(options: &TaskOptions) -> Self {
        Self {
            time: Lock::new(options.time_limit),
            ..Self::default()
        }
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

    pub(super) fn rate(&self) -> Option<Rate> {
        self.rate.lock().as_ref().map(|(rate, _)| rate.clone())
    }

    pub(super) fn set_rate(&self, rate: Option<Rate>) {
        let mut current = self.rate.lock();
        self.has_rate.store(rate.is_some(), Ordering::Release);
        *current = rate.map(|rate| (rate, Instant::now()));
        drop(current);
        self.changed.notify_waiters();
    }

    /// Waits until the rate limit allows another run. A change of the limit applies to waiting runs too.
    pub(super) async fn acquire(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the reservation, because a change in between must be noticed.
            changed.as_mut().enable();
            let Some(at) = self.reserve() else { return };
            tokio::select! {
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

/// Rate limit of a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rate {
    /// Text the rate was parsed from, such as `10/m`.
    pub text: String,
    interval: Duration,
}

impl Rate {
    /// Parses `10`, `10/s`, `100/m` or `3.5/h`. Returns `None` for zero, which means no limit.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, InvalidRate> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(InvalidRate),
        };
        let number: f64 = number.trim().parse().map_err(|_| InvalidRate)?;
        if !(number.is_finite() && number >= 0.0) {
            return Err(InvalidRate);
        }
        Ok((number > 0.0).then(|| Self {
            text: text.to_owned(),
            interval: Duration::from_secs_f64((seconds / number).clamp(1e-9, MAX_INTERVAL)),
        }))
    }
}

/// Maximum interval between two runs: one day, in seconds.
const MAX_INTERVAL: f64 = 86_400.0;

/// Error for a string that is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidRate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_parsed_as_in_celery() {
        let interval = |text: &str| Rate::parse(text).map(|rate| rate.map(|rate| rate.interval));
        assert_eq!(interval("10"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(interval("10/s"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(interval("120/m"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(interval("0.5/h"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(interval("0"), Ok(None));
        assert_eq!(interval("0/m"), Ok(None));
        for wrong in ["", "x", "1/d", "-1/s", "inf", "nan/s", "1/s/s"] {
            assert_eq!(interval(wrong), Err(InvalidRate), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn runs_start_one_interval_apart_and_a_change_applies_immediately() {
        let limits = Limits::new(&TaskOptions::default());
        limits.set_rate(Rate::parse("10/s").unwrap());
        let start = Instant::now();
        for _ in 0..5 {
            limits.acquire().await;
        }
        let passed = start.elapsed();
        assert!((400..420).contains(&passed.as_millis()), "{passed:?}");
        limits.set_rate(Rate::parse("1/h").unwrap());
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
