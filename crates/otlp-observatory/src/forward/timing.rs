//! Time limits and batch sizes of sending.

use std::time::Duration;

use super::back_off::BackOff;

/// Time limits and batch sizes. Tests use shorter times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Maximum time for which the first record of a batch waits for more records.
    pub(super) linger: Duration,
    /// Maximum size of a batch before compression, in bytes; a single record may be larger.
    pub(super) batch_bytes: usize,
    /// Maximum number of records in a batch.
    pub(super) batch_records: usize,
    /// Time-out for a request to the backend, from connecting to the end of the response.
    pub(super) request_timeout: Duration,
    /// Time-out for a request to the token endpoint.
    pub(super) token_timeout: Duration,
    /// Delay after the first failure.
    pub(super) min_back_off: Duration,
    /// Maximum delay after repeated failures.
    pub(super) max_back_off: Duration,
    /// Maximum delay that a backend can request with `Retry-After`.
    pub(super) max_retry_after: Duration,
    /// Interval between syncs of the queue, which limits the loss in a crash of the machine.
    pub(super) sync_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(1),
            batch_bytes: 1 << 20,
            batch_records: 1024,
            request_timeout: Duration::from_secs(30),
            token_timeout: Duration::from_secs(10),
            min_back_off: Duration::from_secs(1),
            max_back_off: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(600),
            sync_interval: Duration::from_secs(1),
        }
    }
}

impl Timing {
    pub(super) fn back_off(&self) -> BackOff {
        BackOff::new(self.min_back_off, self.max_back_off)
    }
}
