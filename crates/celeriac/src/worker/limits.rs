//! What remote control may change about a registered task: how often it is begun, and how long it may run.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{message::TimeLimit, task::TaskOptions};

/// The state of one registered task.
#[derive(Debug)]
pub(super) struct Limits {
    /// How often it was begun.
    pub total: AtomicU64,
    time: Mutex<TimeLimit>,
    /// Whether there is a rate: the one thing that a task without has to look at.
    rated: AtomicBool,
    turns: Mutex<Turns>,
    changed: Notify,
}

#[derive(Debug)]
struct Turns {
    rate: Option<Rate>,
    /// When the next one may begin.
    next: Instant,
}

impl Limits {
    pub fn new(options: &TaskOptions) -> Self {
        Self {
            total: AtomicU64::new(0),
            time: Mutex::new(TimeLimit {
                hard: options.time_limit,
                soft: options.soft_time_limit,
            }),
            rated: AtomicBool::new(false),
            turns: Mutex::new(Turns {
                rate: None,
                next: Instant::now(),
            }),
            changed: Notify::new(),
        }
    }

    /// How long it may run, unless its message says otherwise.
    pub fn time(&self) -> TimeLimit {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_time(&self, limit: TimeLimit) {
        *self.time.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    pub fn has_rate(&self) -> bool {
        self.rated.load(Ordering::Acquire)
    }

    pub fn rate(&self) -> Option<Rate> {
        self.turns().rate.clone()
    }

    pub fn set_rate(&self, rate: Option<Rate>) {
        let mut turns = self.turns();
        self.rated.store(rate.is_some(), Ordering::Release);
        *turns = Turns {
            rate,
            next: Instant::now(),
        };
        drop(turns);
        self.changed.notify_waiters();
    }

    /// Waits until one more may begin. Those that wait when the rate changes ask again.
    pub async fn turn(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before asking, so that a change after the answer is noticed.
            changed.as_mut().enable();
            let Some(at) = self.book() else { return };
            tokio::select! {
                () = sleep_until(at) => return,
                () = changed => {}
            }
        }
    }

    /// A bucket that holds one token: turns are one interval apart, and none are saved up.
    fn book(&self) -> Option<Instant> {
        let mut turns = self.turns();
        let interval = turns.rate.as_ref()?.interval;
        let at = turns.next.max(Instant::now());
        turns.next = at + interval;
        Some(at)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a task may be begun.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rate {
    /// As it was given, `10/m`.
    pub text: String,
    interval: Duration,
}

impl Rate {
    /// Reads `10`, `10/s`, `100/m` or `3.5/h`. `Ok(None)` for no limit (0), an error for anything else.
    pub fn parse(text: &str) -> Result<Option<Self>, NoRate> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(NoRate),
        };
        let number: f64 = number.trim().parse().map_err(|_| NoRate)?;
        if number == 0.0 {
            return Ok(None);
        }
        if !(number.is_finite() && number > 0.0) {
            return Err(NoRate);
        }
        let interval = (seconds / number).clamp(1e-9, LONGEST_INTERVAL);
        Ok(Some(Self {
            text: text.to_owned(),
            interval: Duration::from_secs_f64(interval),
        }))
    }
}

/// A day, in seconds.
const LONGEST_INTERVAL: f64 = 86_400.0;

/// The text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_celery_writes_them() {
        let interval = |text: &str| Rate::parse(text).map(|rate| rate.map(|rate| rate.interval));
        assert_eq!(interval("10"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(interval("10/s"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(interval("120/m"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(interval("0.5/h"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(interval("0"), Ok(None));
        assert_eq!(interval("0/m"), Ok(None));
        for wrong in ["", "x", "1/d", "-1/s", "inf", "nan/s", "1/s/s"] {
            assert_eq!(interval(wrong), Err(NoRate), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_one_interval_apart_and_a_change_is_heard_at_once() {
        let limits = Limits::new(&TaskOptions::default());
        limits.set_rate(Rate::parse("10/s").unwrap());
        let begin = Instant::now();
        for _ in 0..5 {
            limits.turn().await;
        }
        let passed = begin.elapsed();
        assert!((400..420).contains(&passed.as_millis()), "{passed:?}");
        limits.set_rate(Rate::parse("1/h").unwrap());
        limits.turn().await;
        let waits = limits.turn();
        tokio::pin!(waits);
        tokio::select! {
            () = &mut waits => panic!("it did not wait"),
            // On the test's own clock, which is paused: any time at which nothing is due.
            () = tokio::time::sleep(Duration::from_secs(60)) => limits.set_rate(None),
        }
        waits.await;
        let passed = begin.elapsed();
        assert!((60..62).contains(&passed.as_secs()), "{passed:?}");
    }
}
