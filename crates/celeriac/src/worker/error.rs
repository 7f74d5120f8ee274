//! The error of a worker that did not shut down cleanly.

use thiserror::Error;

/// A worker that did not end cleanly.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Tasks still ran when the grace period was over. They were ended and given back to their queues.
    #[error("{0} tasks were still running at the end of the grace period and were given back")]
    Unfinished(usize),
    /// The broker did not confirm that it has the worker's messages back. They return when the lease or the visibility
    /// timeout ends.
    #[error("{0} messages could not be given back; they return when the worker's lease ends")]
    NotGivenBack(usize),
}
