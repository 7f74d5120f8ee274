//! Tracks whether something is failing, and decides which failures are logged.
//!
//! A log record of this crate may itself arrive here to be forwarded, so logging is bounded: a repeated
//! failure is counted, not logged, and failures that come and go are logged once a minute at most.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The failures of one operation.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Tracked>);

#[derive(Debug, Default)]
struct Tracked {
    outage: Option<Outage>,
    last_logged: Option<Instant>,
}

/// A period, lasting until now, in which every attempt has failed.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) since: SystemTime,
    pub(super) last_failure: Instant,
    pub(super) last_error: String,
    pub(super) began: Instant,
    pub(super) failures: u64,
    is_logged: bool,
}

impl Failures {
    /// Records a failure. Returns whether to log it.
    pub(super) fn failed(&self, error: &impl fmt::Display) -> bool {
        let mut tracked = self.tracked();
        let error = error.to_string();
        let now = Instant::now();
        if let Some(outage) = &mut tracked.outage {
            outage.last_error = error;
            outage.last_failure = now;
            outage.failures += 1;
            return false;
        }
        let is_logged = tracked
            .last_logged
            .is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL);
        if is_logged {
            tracked.last_logged = Some(now);
        }
        tracked.outage = Some(Outage {
            since: SystemTime::now(),
            last_failure: now,
            last_error: error,
            began: now,
            failures: 1,
            is_logged,
        });
        is_logged
    }

    /// Records a success. Returns the outage that it ends, if its end is to be logged.
    pub(super) fn succeeded(&self) -> Option<Outage> {
        self.tracked().outage.take().filter(|outage| outage.is_logged)
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        self.tracked().outage.clone()
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
