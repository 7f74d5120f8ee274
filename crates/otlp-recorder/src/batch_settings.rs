//! The settings of a queued signal.

use std::time::Duration;

/// Sizes and times of the queue of a signal. The OpenTelemetry specification defines the defaults for spans.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchSettings {
    /// Maximum number of queued entries, at least one; entries beyond it are dropped.
    pub queue_size: usize,
    /// Number of entries that make a full batch, at most the size of the queue.
    pub batch_size: usize,
    /// Time between exports of batches that are not full.
    pub delay: Duration,
    /// Time limit of one export, at most an hour. The time-out of the collector also applies.
    pub timeout: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            queue_size: 2_048,
            batch_size: 512,
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        }
    }
}
