//! Contexts in which no spans are recorded, for health endpoints, polling and housekeeping.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// Marker of an untraced context.
struct Untraced;

/// Whether no spans are recorded in `cx`.
pub(crate) fn is_untraced(cx: &Context) -> bool {
    cx.get::<Untraced>().is_some()
}

/// Returns an untraced child of the context `parent`, which passes on the span context of `parent`. If there is
/// none, the child has a new trace id for logs and response headers.
pub(crate) fn untraced_context(parent: &Context) -> Context {
    let parent_span = parent.span().span_context().clone();
    let passed_on = if parent_span.is_valid() {
        parent_span
    } else {
        let ids = RandomIdGenerator::default();
        SpanContext::new(
            ids.new_trace_id(),
            ids.new_span_id(),
            TraceFlags::default(),
            false,
            TraceState::default(),
        )
    };
    parent.with_remote_span_context(passed_on).with_value(Untraced)
}

/// Returns `parent` for work whose span is not recorded: the span context stays the same, but the span itself
/// cannot be changed or ended through the result.
pub(crate) fn passed_on(parent: &Context) -> Context {
    let span = parent.span();
    if span.is_recording() {
        parent.with_remote_span_context(span.span_context().clone())
    } else {
        parent.clone()
    }
}

/// Trace id of a request that has no span because telemetry is disabled. It is shown to the client and never
/// propagated.
struct RequestTrace(TraceId);

/// Returns `parent` for a request while telemetry is disabled, with a trace id to show to the client.
pub(crate) fn disabled_context(parent: &Context) -> Context {
    if parent.span().span_context().is_valid() {
        passed_on(parent)
    } else {
        parent.with_value(RequestTrace(RandomIdGenerator::default().new_trace_id()))
    }
}

/// Returns the trace id to show to clients: that of the current span or that of the request.
pub(crate) fn shown_trace_id(cx: &Context) -> Option<TraceId> {
    let span = cx.span();
    let span_context = span.span_context();
    if span_context.is_valid() {
        return Some(span_context.trace_id());
    }
    cx.get::<RequestTrace>().map(|RequestTrace(id)| *id)
}
