//! A limit, and the error for an attempt that exceeds the limit.

use std::{num::NonZeroU32, time::Duration};

/// Length of a rate-limit window.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// Error for an attempt that exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts")]
pub struct TooManyAttempts {
    /// Time until the next attempt may be admitted.
    pub retry_after: Duration,
}

/// Key of a window: a digest of the account or client address, which keeps personal data out of Redis.
pub(super) type Key = [u8; 16];

/// Maximum number of attempts per window for one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) key: Key,
    pub(super) max_attempts: NonZeroU32,
}
