//! Limits that the receivers share.

use std::time::Duration;

/// Maximum size of an HTTP request body in bytes, before and after decompression.
///
/// The largest batches that collectors send by default are about half as large.
pub(super) const MAX_HTTP_BODY: usize = 16 << 20;

/// Time-out for receiving a request.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay after which senders may retry a request that was rejected for lack of capacity.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
