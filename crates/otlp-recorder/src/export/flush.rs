//! Flush requests, which export everything recorded so far without a shutdown.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::signal::Signal;

/// Maximum duration of an export, flush or shutdown. A much longer duration would overflow the clock.
pub(super) const MAX_DEADLINE: Duration = Duration::from_secs(3_600);

/// The pending requests for one signal; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flushes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<Requests>,
    requested: Notify,
}

#[derive(Debug, Default)]
struct Requests {
    /// Whether the export of the signal has ended.
    closed: bool,
    pending: Vec<FlushRequest>,
}

#[derive(Debug)]
pub(super) struct FlushRequest {
    pub(super) deadline: Instant,
    done: mpsc::Sender<(Signal, bool)>,
}

impl FlushRequest {
    /// Reports whether everything recorded before the request was delivered.
    pub(super) fn done(self, signal: Signal, delivered: bool) {
        // The receiver is dropped after the deadline.
        let _ = self.done.send((signal, delivered));
    }
}

impl Flushes {
    /// Waits for a request. May return spuriously.
    pub(super) async fn requested(&self) {
        self.0.requested.notified().await;
    }

    /// Removes and returns the pending requests.
    pub(super) fn take(&self) -> Vec<FlushRequest> {
        std::mem::take(&mut self.lock().pending)
    }

    /// Ends all requests with the result of the last export. Later ones have no effect, because nothing is left to export.
    pub(super) fn close(&self, signal: Signal, delivered: bool) {
        let mut requests = self.lock();
        requests.closed = true;
        for request in requests.pending.drain(..) {
            request.done(signal, delivered);
        }
    }

    fn request(&self, request: FlushRequest) -> bool {
        let mut requests = self.lock();
        if requests.closed {
            return false;
        }
        requests.pending.push(request);
        drop(requests);
        self.0.requested.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests a flush of all `signals` and waits for it until `deadline`; returns the signals that were not delivered.
pub(crate) fn flush(signals: &[(Signal, Flushes)], deadline: Duration) -> Vec<Signal> {
    let deadline = Instant::now() + deadline.min(MAX_DEADLINE);
    let (done, results) = mpsc::channel();
    let requested = signals.iter().filter(|(_, flushes)| {
        let done = done.clone();
        flushes.request(FlushRequest { deadline, done })
    });
    let mut waiting: Vec<Signal> = requested.map(|(signal, _)| *signal).collect();
    drop(done);
    let mut undelivered = Vec::new();
    while !waiting.is_empty() {
        match results.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((signal, delivered)) => {
                waiting.retain(|waiting| *waiting != signal);
                if !delivered {
                    undelivered.push(signal);
                }
            }
            // The deadline has passed, or a panic has ended the export.
            Err(_) => undelivered.append(&mut waiting),
        }
    }
    undelivered
}
