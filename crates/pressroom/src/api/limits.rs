//! Limits that handlers and middleware share.

use std::time::Duration;

/// Limits on a single request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum size of a request body, in bytes.
    pub body: usize,
    /// Maximum duration of a request; the response to a longer request is 503.
    pub request: Duration,
}
