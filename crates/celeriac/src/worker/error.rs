//! Error of the worker.

use thiserror::Error;

/// Error of a worker that did not shut down cleanly.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Tasks were still running at the end of the grace period. They were aborted, and their messages were
    /// returned to their queues.
    #[error("{0} tasks were still running at the end of the grace period; their messages were returned")]
    Unfinished(usize),
    /// The broker did not confirm the return of messages. They are redelivered when the worker's lease or the
    /// visibility time-out expires.
    #[error(
        "{0} messages could not be returned to their queues; they are redelivered when the worker's lease expires"
    )]
    NotReturned(usize),
}
