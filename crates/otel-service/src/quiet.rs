//! Quiet contexts, in which no spans are recorded, for health endpoints, polling and housekeeping.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// Marker of a quiet context.
struct Quiet;

/// Whether `cx` is quiet.
pub(crate) fn is_quiet(cx: &Context) -> bool {
    cx.get::<Quiet>().is_some()
}

/// Returns a quiet child of the context `parent`. Its trace id, for logs and response headers, is that of
/// `parent` or a new one.
pub(crate) fn quiet_context(parent: &Context) -> Context {
    let ids = RandomIdGenerator::default();
    let parent_span = parent.span().span_context().clone();
    let trace_id = if parent_span.is_valid() {
        parent_span.trace_id()
    } else {
        ids.new_trace_id()
    };
    parent
        .with_remote_span_context(SpanContext::new(
            trace_id,
            ids.new_span_id(),
            TraceFlags::default(),
            false,
            TraceState::default(),
        ))
        .with_value(Quiet)
}
