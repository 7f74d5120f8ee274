//! The sampler of `OTEL_TRACES_SAMPLER`, with one addition: below a quiet request (a health check) nothing is sampled,
//! whatever the variable says.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use crate::context::Quiet;

/// Drops spans in a quiet context and asks `inner` for the others.
#[derive(Clone, Debug)]
pub(crate) struct QuietSampler {
    pub(crate) inner: Sampler,
}

impl QuietSampler {
    /// Whether a span below `parent`, which is no quiet context, is sampled. The SDK's samplers say no more than that: none
    /// of them has attributes of its own, or another trace state than the parent's.
    pub(crate) fn samples(
        &self,
        parent: &Context,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        links: &[Link],
    ) -> bool {
        let above = parent.span();
        let above = above.span_context();
        match &self.inner {
            // What the SDK's would decide, for nearly all spans.
            Sampler::ParentBased(_) if above.is_valid() => above.is_sampled(),
            inner => {
                let result = inner.should_sample(Some(parent), trace_id, name, kind, &[], links);
                result.decision == SamplingDecision::RecordAndSample
            }
        }
    }
}

impl ShouldSample for QuietSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if parent.is_some_and(|cx| cx.get::<Quiet>().is_some()) {
            return SamplingResult {
                decision: SamplingDecision::Drop,
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            };
        }
        self.inner
            .should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
