//! Contexts in which no spans are recorded, for health endpoints, polling and housekeeping.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// Marker of an untraced context.
struct Untraced;

/// Whether no spans are recorded in `cx`.
pub(crate) fn is_untraced(cx: &Context) -> bool {
    cx.get::<Untraced>().is_some()
}

/// Returns an untraced child of the context `parent`, with the trace id of `parent` or a new one for logs and
/// response headers.
pub(crate) fn untraced_context(parent: &Context) -> Context {
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
        .with_value(Untraced)
}
