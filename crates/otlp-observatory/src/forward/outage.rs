//! Something that works or does not, told when it changes. What is logged here may come back to be forwarded, so a
//! failure that repeats is counted and not logged, and one that comes and goes is logged once a minute at most.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    told_at: Option<Instant>,
}

/// What does not work.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) since: SystemTime,
    /// The last failure.
    pub(super) last: Instant,
    pub(super) error: String,
    began: Instant,
    failures: u64,
    is_told: bool,
}

/// An outage that is over, and that was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) lasted: Duration,
    pub(super) failures: u64,
}

impl Outage {
    /// It failed, again perhaps. Whether this is to be logged.
    pub(super) fn failed(&self, error: &impl fmt::Display) -> bool {
        let mut state = self.state();
        let error = error.to_string();
        let now = Instant::now();
        if let Some(current) = &mut state.current {
            current.error = error;
            current.last = now;
            current.failures += 1;
            return false;
        }
        let is_told = state.told_at.is_none_or(|at| now.duration_since(at) >= QUIET);
        if is_told {
            state.told_at = Some(now);
        }
        state.current = Some(Current {
            since: SystemTime::now(),
            last: now,
            error,
            began: now,
            failures: 1,
            is_told,
        });
        is_told
    }

    /// It works. What is to be logged about the outage that this ends.
    pub(super) fn ended(&self) -> Option<Ended> {
        let current = self.state().current.take()?;
        current.is_told.then(|| Ended {
            lasted: current.began.elapsed(),
            failures: current.failures,
        })
    }

    pub(super) fn current(&self) -> Option<Current> {
        self.state().current.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
