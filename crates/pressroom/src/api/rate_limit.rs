//! The header fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), which tell
//! clients the quota of an operation and how much of it is left.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::accounts::{Policy, Quota, TooManyAttempts};

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Quota that a request counts against, set by an extractor and added to the response by the middleware.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestQuota(Arc<OnceLock<Quota>>);

impl RequestQuota {
    pub(super) fn set(&self, quota: Quota) {
        let _ = self.0.set(quota);
    }

    /// Adds the quota's fields, unless the response already has those of an exceeded quota.
    pub(super) fn write_fields(&self, headers: &mut HeaderMap) {
        if let Some(quota) = self.0.get()
            && !headers.contains_key(RATE_LIMIT)
        {
            write(headers, quota.policy, quota.remaining, quota.resets_in);
        }
    }
}

/// Adds the fields of an exceeded quota.
pub(super) fn write_exceeded(headers: &mut HeaderMap, refused: TooManyAttempts) {
    write(headers, refused.policy, 0, refused.retry_after);
}

fn write(headers: &mut HeaderMap, Policy { name, quota }: Policy, remaining: u32, resets_in: Duration) {
    let (window, reset) = (Policy::WINDOW.as_secs(), seconds(resets_in));
    let fields = [
        (RATE_LIMIT_POLICY, format!(r#""{name}";q={quota};w={window}"#)),
        (RATE_LIMIT, format!(r#""{name}";r={remaining};t={reset}"#)),
    ];
    for (field, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(field, value);
        }
    }
}

/// Returns a duration in whole seconds, at least one, as in `Retry-After`.
pub(super) fn seconds(duration: Duration) -> u32 {
    let seconds = duration.as_nanos().div_ceil(1_000_000_000).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
