//! A limit, and its state after a request.

use std::{num::NonZeroU32, time::Duration};

/// Length of a rate-limit window.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// Name and quota of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Name that clients see.
    pub name: &'static str,
    /// Maximum number of requests per window.
    pub quota: NonZeroU32,
}

impl Policy {
    /// Length of the window.
    pub const WINDOW: Duration = WINDOW;
}

/// State of a quota after a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub policy: Policy,
    /// Number of further requests that are admitted in the current window.
    pub remaining: u32,
    /// Time until the window ends.
    pub resets_in: Duration,
}

/// Error for a request that exceeds a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts")]
pub struct TooManyAttempts {
    /// The exceeded policy.
    pub policy: Policy,
    /// Time until the next attempt may be admitted.
    pub retry_after: Duration,
}

/// Key of a window: a digest of the account or client address, which keeps personal data out of Redis.
pub(super) type Key = [u8; 16];

/// A policy that applies to the requests with one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) policy: Policy,
    pub(super) key: Key,
}
