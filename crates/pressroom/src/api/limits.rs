use std::time::Duration;

/// Limits of a single request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum size of the request body, in bytes.
    pub body: usize,
    /// Time after which a request is answered with 503.
    pub request: Duration,
}
