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

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    use super::*;

    /// A context whose span is in the trace 7.
    fn parent(flags: TraceFlags, is_remote: bool) -> Context {
        let state = TraceState::from_key_value([("vendor", "x")]).unwrap();
        let span = SpanContext::new(TraceId::from(7), SpanId::from(1), flags, is_remote, state);
        Context::new().with_remote_span_context(span)
    }

    #[test]
    fn a_span_is_sampled_as_the_sdk_would_and_nothing_is_lost_by_not_asking_it() {
        let roots = [
            Sampler::AlwaysOn,
            Sampler::AlwaysOff,
            Sampler::TraceIdRatioBased(1e-9),
        ];
        let based = roots.clone().map(|root| Sampler::ParentBased(Box::new(root)));
        let mut parents = vec![Context::new()];
        for flags in [TraceFlags::SAMPLED, TraceFlags::default()] {
            parents.extend([parent(flags, true), parent(flags, false)]);
        }
        let mut sampled = 0;
        for inner in roots.into_iter().chain(based) {
            let quiet = QuietSampler { inner };
            for parent in &parents {
                let id = TraceId::from(u128::MAX);
                let kind = SpanKind::Internal;
                let result = quiet.should_sample(Some(parent), id, "a", &kind, &[], &[]);
                let expected = result.decision == SamplingDecision::RecordAndSample;
                assert_eq!(
                    quiet.samples(parent, id, "a", &kind, &[]),
                    expected,
                    "{quiet:?} {parent:?}"
                );
                assert_eq!(result.trace_state, *parent.span().span_context().trace_state());
                assert_eq!(result.attributes, []);
                sampled += u32::from(expected);
            }
        }
        // All five by the first; two of each that is based on a parent, and without one by its root.
        assert_eq!(sampled, 5 + 3 * 2 + 1);
    }
}
