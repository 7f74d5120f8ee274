//! State of a connection that its stream, its service and the accept loop share.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::invalid::InvalidRequest;

/// Minimum time for a client to send a request before a new connection can replace its connection.
const MIN_WAITING: Duration = Duration::from_millis(100);

/// Extra time for a client from which nothing has been read yet, because its first bytes may be on their way.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// Value for a request body that is not awaited.
const COMPLETE: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct ConnectionState {
    opened: Instant,
    /// Time of the last activity, in milliseconds after the connection was opened.
    active: AtomicU64,
    /// Whether the connection has waited for a request at least once.
    has_waited: AtomicBool,
    /// Whether the client has sent anything.
    has_sent: AtomicBool,
    /// Whether the connection has had a request.
    has_requested: AtomicBool,
    /// Number of requests whose response is not complete.
    in_progress: AtomicUsize,
    /// Time since which the connection has waited for the rest of a request body, in milliseconds after the connection
    /// was opened, or [`COMPLETE`].
    awaits_body: AtomicU64,
    /// Whether a response waits for the client to read it.
    writing: AtomicBool,
    /// Number of the invalid request, which is the last one, and the reason.
    invalid: OnceLock<(u64, InvalidRequest)>,
}

impl ConnectionState {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            active: AtomicU64::new(0),
            has_waited: AtomicBool::new(false),
            has_sent: AtomicBool::new(false),
            has_requested: AtomicBool::new(false),
            in_progress: AtomicUsize::new(0),
            awaits_body: AtomicU64::new(COMPLETE),
            writing: AtomicBool::new(false),
            invalid: OnceLock::new(),
        })
    }

    /// Returns the time since which the connection has waited for a request (now if it has not been read yet), or
    /// `None` during a request.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        if self.in_progress.load(Relaxed) > 0 || self.writing.load(Relaxed) {
            None
        } else if self.has_waited.load(Relaxed) {
            Some(self.opened + Duration::from_millis(self.active.load(Relaxed)))
        } else {
            Some(Instant::now())
        }
    }

    pub(crate) fn has_requested(&self) -> bool {
        self.has_requested.load(Relaxed)
    }

    /// Returns the time from which a new connection may replace this one, or `None` during a request that the client
    /// has sent completely. `grace` limits the time for the first request.
    pub(crate) fn replaceable_at(&self, grace: Option<Duration>) -> Option<Instant> {
        let awaits_body = self.awaits_body.load(Relaxed);
        if awaits_body != COMPLETE && !self.writing.load(Relaxed) {
            return Some(self.opened + Duration::from_millis(awaits_body) + MIN_WAITING);
        }
        let since = self.waiting_since()?;
        let has_sent = self.has_sent.load(Relaxed);
        let at = since
            + if has_sent {
                MIN_WAITING
            } else {
                MIN_WAITING + FIRST_BYTE
            };
        Some(match grace {
            Some(grace) if !self.has_requested() => at.min(since + grace),
            _ => at,
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> InProgress {
        self.sent();
        self.has_requested.store(true, Relaxed);
        self.in_progress.fetch_add(1, Relaxed);
        InProgress(self.clone())
    }

    /// Records that the connection waits for a request.
    pub(crate) fn wait(&self) {
        if !self.has_waited.swap(true, Relaxed) {
            self.record_activity();
        }
    }

    /// Records that the client has sent only a part of a request body.
    pub(crate) fn await_body(&self) {
        if self.awaits_body.load(Relaxed) == COMPLETE {
            self.awaits_body.store(self.elapsed(), Relaxed);
        }
    }

    /// Records that the client has sent a request body completely.
    pub(crate) fn received_body(&self) {
        self.awaits_body.store(COMPLETE, Relaxed);
    }

    /// Records that the client has sent bytes.
    pub(crate) fn sent(&self) {
        self.has_sent.store(true, Relaxed);
    }

    /// Restarts the time for which the connection waits.
    pub(crate) fn record_activity(&self) {
        self.active.store(self.elapsed(), Relaxed);
    }

    /// Returns the age of the connection in milliseconds.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(COMPLETE - 1)
    }

    pub(crate) fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Relaxed);
    }

    /// Marks request `number` as invalid. It must be the last one of the connection.
    pub(crate) fn refuse(&self, number: u64, problem: InvalidRequest) {
        // The stream refuses at most one request.
        let _ = self.invalid.set((number, problem));
    }

    pub(crate) fn refusal_of(&self, number: u64) -> Option<InvalidRequest> {
        let (refused, problem) = self.invalid.get()?;
        (*refused == number).then_some(*problem)
    }
}

/// Guard that counts a request as in progress until it is dropped.
#[derive(Debug)]
pub(crate) struct InProgress(Arc<ConnectionState>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.record_activity();
        self.0.in_progress.fetch_sub(1, Relaxed);
    }
}
