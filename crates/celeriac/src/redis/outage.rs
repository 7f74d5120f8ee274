//! Logs outages of a broker handle's server: one warning when the server becomes unavailable and one record
//! when it is back, for any number of connections and loops. The same applies to a server that is reachable
//! but rejects commands.
//!
//! An outage lasts from the first broken connection or failed attempt to the next successful connection. An
//! idle connection that detects the outage after its end does not log it again.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    lock::Lock,
    log::{debug, info, warn},
};

/// Maximum number of recorded kinds of rejected commands.
const MAX_REFUSED_REQUESTS: usize = 16;

/// Minimum time from the end of a logged refusal to the next one that is logged. At its limit of memory, a server accepts
/// one command and rejects the next.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(30);

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
    /// End of the last refusal that was logged.
    last_acceptance: Option<Instant>,
}

#[derive(Debug)]
struct Refusal {
    since: Instant,
    is_logged: bool,
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
        let is_due = status
            .last_acceptance
            .is_none_or(|end| end.elapsed() >= REFUSAL_INTERVAL);
        let refusal = status.refusal.get_or_insert_with(|| Refusal {
            since: Instant::now(),
            is_logged: false,
            requests: BTreeSet::new(),
        });
        if is_due && !refusal.is_logged {
            refusal.is_logged = true;
            warn!(
                exception.message = cause,
                "Redis rejects commands; retrying until it accepts them"
            );
        }
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
            if refusal.is_logged {
                let outage_seconds = refusal.since.elapsed().as_secs_f64();
                info!(outage.duration = outage_seconds, "Redis accepts commands again");
                status.last_acceptance = Some(Instant::now());
            }
            status.refusal = None;
            self.refusing.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports commands that are rejected and accepted in turn. Returns the number of logged refusals.
    async fn logged_refusals(outages: &Outages, turns: u32, every: Duration) -> usize {
        let mut logged = 0;
        for _ in 0..turns {
            outages.report_refusal("LPUSH".to_owned(), "OOM");
            let refusal =
                |status: &OutageStatus| status.refusal.as_ref().is_some_and(|refusal| refusal.is_logged);
            logged += usize::from(refusal(&outages.status.lock()));
            outages.report_answer(|| "LPUSH".to_owned());
            assert!(!outages.refusing.load(Ordering::Acquire));
            tokio::time::advance(every).await;
        }
        logged
    }

    #[tokio::test(start_paused = true)]
    async fn alternating_answers_are_logged_once_per_interval() {
        let outages = Outages::default();
        let every = REFUSAL_INTERVAL / 10;
        assert_eq!(logged_refusals(&outages, 20, every).await, 2);
        tokio::time::advance(REFUSAL_INTERVAL).await;
        assert_eq!(logged_refusals(&outages, 5, every).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_outlasts_the_interval_is_logged() {
        let outages = Outages::default();
        assert_eq!(logged_refusals(&outages, 1, Duration::ZERO).await, 1);
        let is_logged = || {
            outages
                .status
                .lock()
                .refusal
                .as_ref()
                .map(|refusal| refusal.is_logged)
        };
        outages.report_refusal("LPUSH".to_owned(), "OOM");
        assert_eq!(is_logged(), Some(false));
        tokio::time::advance(REFUSAL_INTERVAL).await;
        outages.report_refusal("LPUSH".to_owned(), "OOM");
        assert_eq!(is_logged(), Some(true));
    }
}
