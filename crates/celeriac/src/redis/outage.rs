//! Logs outages of a broker handle's server: one warning when the server becomes unavailable and one record
//! when it is back, for any number of connections and loops. The same applies to a server that is reachable
//! but rejects commands.
//!
//! An outage lasts from the first broken connection or failed attempt to the next successful connection. An
//! idle connection that detects the outage after its end does not log it again.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

use crate::{
    lock::Lock,
    log::{debug, info, warn},
};

/// Maximum number of recorded kinds of rejected commands.
const MAX_REFUSED_REQUESTS: usize = 16;

/// Outages of one server as seen by one broker handle.
#[derive(Debug, Default)]
pub(super) struct Outages {
    status: Lock<OutageStatus>,
    /// Whether the server rejects commands. Normally, successful commands read only this flag.
    refusing: AtomicBool,
}

#[derive(Debug, Default)]
struct OutageStatus {
    unavailable_since: Option<Instant>,
    /// End of the last outage.
    last_recovery: Option<Instant>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    since: Instant,
    /// Kinds of rejected commands. The server has recovered when it accepts one of these kinds; it may have
    /// accepted other kinds throughout.
    requests: BTreeSet<String>,
}

impl Outages {
    /// Records that a connection made at `made` has broken, or that connecting has failed.
    pub(super) fn report_unavailable(&self, made: Option<Instant>, cause: &str) {
        let mut status = self.status.lock();
        let late = made.is_some_and(|made| status.last_recovery.is_some_and(|recovery| made <= recovery));
        if status.unavailable_since.is_some() || late {
            debug!(exception.message = cause, "another connection to Redis broke");
        } else {
            status.unavailable_since = Some(Instant::now());
            warn!(
                exception.message = cause,
                "Redis is unavailable; reconnecting until it is back"
            );
        }
    }

    /// Records a successful connection to a server that accepts commands.
    pub(super) fn report_available(&self) {
        let mut status = self.status.lock();
        if let Some(since) = status.unavailable_since.take() {
            status.last_recovery = Some(Instant::now());
            let outage_seconds = since.elapsed().as_secs_f64();
            info!(outage.duration = outage_seconds, "Redis is back");
        }
    }

    /// Records that the server is reachable but rejected a command of this kind because of its own condition.
    pub(super) fn report_refusal(&self, request: String, cause: &str) {
        let mut status = self.status.lock();
        let refusal = status.refusal.get_or_insert_with(|| {
            warn!(
                exception.message = cause,
                "Redis rejects commands; retrying until it accepts them"
            );
            Refusal {
                since: Instant::now(),
                requests: BTreeSet::new(),
            }
        });
        if refusal.requests.len() < MAX_REFUSED_REQUESTS {
            refusal.requests.insert(request);
        }
        self.refusing.store(true, Ordering::Release);
    }

    /// Records that the server accepted a command of this kind.
    pub(super) fn report_answer(&self, request: impl FnOnce() -> String) {
        if !self.refusing.load(Ordering::Acquire) {
            return;
        }
        let mut status = self.status.lock();
        if let Some(refusal) = &status.refusal
            && refusal.requests.contains(&request())
        {
            let outage_seconds = refusal.since.elapsed().as_secs_f64();
            info!(outage.duration = outage_seconds, "Redis accepts commands again");
            status.refusal = None;
            self.refusing.store(false, Ordering::Release);
        }
    }
}
