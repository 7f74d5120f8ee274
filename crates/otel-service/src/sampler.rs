//! The sampler of SDK tracers: applies `OTEL_TRACES_SAMPLER` or the program's sampler, except in an untraced context,
//! where no span is sampled.

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

use crate::untraced::is_untraced;

/// A sampler that drops spans in an untraced context and delegates other decisions to `inner`.
#[derive(Clone, Debug)]
pub(crate) struct UntracedSampler {
    pub(crate) inner: Box<dyn ShouldSample>,
}

impl ShouldSample for UntracedSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if parent.is_some_and(is_untraced) {
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
