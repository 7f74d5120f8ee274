//! The names of the propagation headers, for a cheap check that skips requests without a context.

use std::sync::OnceLock;

use http::{HeaderMap, HeaderName};
use opentelemetry::propagation::TextMapPropagator;

/// Set by [`crate::init`].
static HEADERS: OnceLock<Vec<HeaderName>> = OnceLock::new();

/// Stores the header names of `propagator`.
pub(crate) fn install(propagator: &dyn TextMapPropagator) {
    HEADERS.get_or_init(|| propagator.fields().filter_map(|name| name.parse().ok()).collect());
}

/// Returns whether `headers` may carry a context.
pub(crate) fn may_carry_context(headers: &HeaderMap) -> bool {
    let names = HEADERS.get();
    names.is_none_or(|names| names.iter().any(|name| headers.contains_key(name)))
}
