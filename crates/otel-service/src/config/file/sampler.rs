//! The sampler of a configuration file.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

use super::reader::{Section, Value};

/// A sampler of the SDK, which spans of this crate support at no cost, or another one.
#[derive(Clone, Debug)]
pub(super) enum Chosen {
    Sdk(Sampler),
    Own(Box<dyn ShouldSample>),
}

impl Chosen {
    fn boxed(self) -> Box<dyn ShouldSample> {
        match self {
            Self::Sdk(sampler) => Box::new(sampler),
            Self::Own(sampler) => sampler,
        }
    }
}

/// Reads `sampler`.
pub(super) fn sampler(value: Value<'_>) -> Option<Chosen> {
    let (name, value) = value.section().component()?;
    let chosen = match name {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "trace_id_ratio_based" => {
            let ratio = value
                .section()
                .get("ratio")
                .map_or(Some(1.0), |ratio| ratio.ratio());
            return ratio.map(|ratio| Chosen::Sdk(Sampler::TraceIdRatioBased(ratio)));
        }
        "parent_based" => return parent_based(value.section()),
        _ => {
            value.refuse("is not a supported sampler");
            return None;
        }
    };
    // Refuses properties.
    drop(value.section());
    Some(Chosen::Sdk(chosen))
}

fn parent_based(mut section: Section<'_>) -> Option<Chosen> {
    let mut part = |name: &str, default: Sampler| match section.get(name) {
        Some(value) => sampler(value),
        None => Some(Chosen::Sdk(default)),
    };
    let root = part("root", Sampler::AlwaysOn);
    let parts = [
        part("remote_parent_sampled", Sampler::AlwaysOn),
        part("remote_parent_not_sampled", Sampler::AlwaysOff),
        part("local_parent_sampled", Sampler::AlwaysOn),
        part("local_parent_not_sampled", Sampler::AlwaysOff),
    ];
    let root = root?;
    let [
        Some(remote_sampled),
        Some(remote),
        Some(local_sampled),
        Some(local),
    ] = parts
    else {
        return None;
    };
    let is = |part: &Chosen, always_on: bool| match part {
        Chosen::Sdk(Sampler::AlwaysOn) => always_on,
        Chosen::Sdk(Sampler::AlwaysOff) => !always_on,
        _ => false,
    };
    if is(&remote_sampled, true) && is(&local_sampled, true) && is(&remote, false) && is(&local, false) {
        return Some(Chosen::Sdk(Sampler::ParentBased(root.boxed())));
    }
    Some(Chosen::Own(Box::new(ParentBased {
        root: root.boxed(),
        remote: [remote.boxed(), remote_sampled.boxed()],
        local: [local.boxed(), local_sampled.boxed()],
    })))
}

/// A parent-based sampler with a sampler for each kind of parent. The SDK's has only one for root spans.
#[derive(Clone, Debug)]
struct ParentBased {
    root: Box<dyn ShouldSample>,
    /// Samplers for remote parents: not sampled, sampled.
    remote: [Box<dyn ShouldSample>; 2],
    /// Samplers for local parents: not sampled, sampled.
    local: [Box<dyn ShouldSample>; 2],
}

impl ShouldSample for ParentBased {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let span = parent
            .filter(|cx| cx.has_active_span())
            .map(|cx| cx.span().span_context().clone());
        let sampler = match span {
            Some(span) if span.is_valid() => {
                let samplers = if span.is_remote() {
                    &self.remote
                } else {
                    &self.local
                };
                &samplers[usize::from(span.is_sampled())]
            }
            _ => &self.root,
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::super::tests::value_of;
    use super::*;

    #[test]
    fn each_kind_of_parent_has_its_sampler() {
        let chosen = value_of(
            "parent_based:\n  root: {always_off: }\n  remote_parent_sampled: {always_off: }\n  \
             local_parent_not_sampled:\n    trace_id_ratio_based: {ratio: 1}",
            sampler,
        );
        let Some(Chosen::Own(sampler)) = chosen else {
            panic!("{chosen:?}");
        };
        let decide = |flags, remote| {
            let span = SpanContext::new(
                TraceId::from(1),
                SpanId::from(2),
                flags,
                remote,
                TraceState::default(),
            );
            let cx = Context::new().with_remote_span_context(span);
            let result =
                sampler.should_sample(Some(&cx), TraceId::from(1), "a", &SpanKind::Internal, &[], &[]);
            result.decision == SamplingDecision::RecordAndSample
        };
        assert!(!decide(TraceFlags::SAMPLED, true));
        assert!(!decide(TraceFlags::NOT_SAMPLED, true));
        assert!(decide(TraceFlags::SAMPLED, false));
        assert!(decide(TraceFlags::NOT_SAMPLED, false));
        let root = sampler.should_sample(None, TraceId::from(1), "a", &SpanKind::Internal, &[], &[]);
        assert_eq!(root.decision, SamplingDecision::Drop);
    }

    #[test]
    fn the_usual_samplers_are_those_of_the_sdk() {
        for yaml in [
            "always_on:",
            "always_off: {}",
            "trace_id_ratio_based: {ratio: 0.5}",
            "parent_based:",
            "parent_based: {root: {always_on: }, remote_parent_not_sampled: {always_off: }}",
        ] {
            let chosen = value_of(yaml, sampler);
            assert!(matches!(chosen, Some(Chosen::Sdk(_))), "{yaml}: {chosen:?}");
        }
    }
}
