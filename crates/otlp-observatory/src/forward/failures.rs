//! Logs when an operation begins to fail and when it succeeds again.
//!
//! A log record of this crate may itself be received and forwarded, so logging is bounded: an outage is logged when it
//! begins and when it ends, and frequent outages at most once a minute.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use crate::export::Signal;

const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Failures of one operation.
#[derive(Debug)]
pub(super) struct Failures {
    signal: Signal,
    /// Log message for the beginning of an outage.
    failing: &'static str,
    /// Log message for the end of an outage.
    working: &'static str,
    tracked: Mutex<Tracked>,
}

#[derive(Debug, Default)]
struct Tracked {
    outage: Option<Outage>,
    last_logged: Option<Instant>,
}

/// Current period in which every attempt has failed.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) since: SystemTime,
    pub(super) last_failure: Instant,
    pub(super) last_error: String,
    began: Instant,
    failures: u64,
    is_logged: bool,
}

impl Failures {
    pub(super) fn new(signal: Signal, failing: &'static str, working: &'static str) -> Self {
        Self {
            signal,
            failing,
            working,
            tracked: Mutex::default(),
        }
    }

    /// Records a failure, which affected `items` if their number is known.
    pub(super) fn failed(&self, error: &impl fmt::Display, items: Option<u64>) {
        let mut tracked = self.tracked();
        let last_error = error.to_string();
        let now = Instant::now();
        if let Some(outage) = &mut tracked.outage {
            outage.last_error = last_error;
            outage.last_failure = now;
            outage.failures += 1;
            return;
        }
        let is_logged = tracked
            .last_logged
            .is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL);
        tracked.outage = Some(Outage {
            since: SystemTime::now(),
            last_failure: now,
            last_error,
            began: now,
            failures: 1,
            is_logged,
        });
        if is_logged {
            tracked.last_logged = Some(now);
            drop(tracked);
            telemetry::warn!(
                telemetry.signal = self.signal.name(),
                %error,
                queue.items = items,
                "{}", self.failing
            );
        }
    }

    /// Records a success, which ends the outage.
    pub(super) fn succeeded(&self) {
        let outage = self.tracked().outage.take();
        if let Some(outage) = outage.filter(|outage| outage.is_logged) {
            telemetry::info!(
                telemetry.signal = self.signal.name(),
                outage.duration = outage.began.elapsed().as_secs_f64(),
                outage.failures = outage.failures,
                "{}",
                self.working
            );
        }
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        self.tracked().outage.clone()
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
