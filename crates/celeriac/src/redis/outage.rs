//! What a broker handle says about its server: one warning when it goes away and one line when it is back, however
//! many connections and loops have noticed. The same for a server that is there but refuses to work.
//!
//! The server is away from the first broken connection or failed attempt until a new connection has been made. What
//! an idle connection notices later, of an outage that has ended meanwhile, is not said again.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::log::{debug, info, warn};
use tokio::time::Instant;

/// Kinds of requests that are remembered as refused.
const MOST_REFUSED: usize = 16;

/// The outages of one server as one broker handle sees them.
#[derive(Debug, Default)]
pub(super) struct Outages {
    state: Mutex<State>,
    /// Whether there is a refusal, so that requests look at nothing else while there is none.
    refusing: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    away: Option<Instant>,
    /// When the last outage ended.
    back: Option<Instant>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    since: Instant,
    /// What was refused. The server works again when it answers one of these: others it may have answered all along.
    requests: BTreeSet<String>,
}

impl Outages {
    /// A connection has broken that was made at `made`, or could not be made at all.
    pub fn away(&self, made: Option<Instant>, cause: &str) {
        let mut state = self.state();
        let late = made.is_some_and(|made| state.back.is_some_and(|back| made <= back));
        if state.away.is_some() || late {
            debug!(cause, "another connection to Redis has broken");
        } else {
            state.away = Some(Instant::now());
            warn!(cause, "Redis is unavailable; reconnecting until it is back");
        }
    }

    /// A connection was made, to a server that does its work.
    pub fn back(&self) {
        let mut state = self.state();
        if let Some(since) = state.away.take() {
            state.back = Some(Instant::now());
            let outage_seconds = since.elapsed().as_secs_f64();
            info!(outage_seconds, "Redis is back");
        }
    }

    /// The server is there but has refused a request of this kind for a reason of its own.
    pub fn refused(&self, request: String, cause: &str) {
        let mut state = self.state();
        let refusal = state.refusal.get_or_insert_with(|| {
            warn!(cause, "Redis refuses to work; trying until it does not");
            Refusal {
                since: Instant::now(),
                requests: BTreeSet::new(),
            }
        });
        if refusal.requests.len() < MOST_REFUSED {
            refusal.requests.insert(request);
        }
        self.refusing.store(true, Ordering::Release);
    }

    /// The server has answered a request of this kind.
    pub fn answered(&self, request: impl FnOnce() -> String) {
        if !self.refusing.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        if let Some(refusal) = &state.refusal
            && refusal.requests.contains(&request())
        {
            let outage_seconds = refusal.since.elapsed().as_secs_f64();
            info!(outage_seconds, "Redis works again");
            state.refusal = None;
            self.refusing.store(false, Ordering::Release);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
