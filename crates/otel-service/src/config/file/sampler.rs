//! The sampler of a configuration file.

use opentelemetry_sdk::trace::{Sampler, ShouldSample};

use super::reader::{Section, Value};
use crate::sampling::ParentBased;

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
    let root = match section.get("root") {
        Some(value) => sampler(value),
        None => Some(Chosen::Sdk(Sampler::AlwaysOn)),
    };
    let mut of_parents = Some(Vec::new());
    for (name, is_remote, is_sampled) in [
        ("remote_parent_sampled", true, true),
        ("remote_parent_not_sampled", true, false),
        ("local_parent_sampled", false, true),
        ("local_parent_not_sampled", false, false),
    ] {
        let Some(value) = section.get(name) else { continue };
        match sampler(value) {
            // The default, which follows the parent.
            Some(Chosen::Sdk(Sampler::AlwaysOn)) if is_sampled => {}
            Some(Chosen::Sdk(Sampler::AlwaysOff)) if !is_sampled => {}
            Some(chosen) => of_parents
                .iter_mut()
                .for_each(|all| all.push((is_remote, is_sampled, chosen.clone()))),
            None => of_parents = None,
        }
    }
    let (root, of_parents) = (root?.boxed(), of_parents?);
    if of_parents.is_empty() {
        return Some(Chosen::Sdk(Sampler::ParentBased(root)));
    }
    let with_part = |sampler: ParentBased, (is_remote, is_sampled, part): (bool, bool, Chosen)| {
        sampler.with(is_remote, is_sampled, part.boxed())
    };
    let sampler = of_parents.into_iter().fold(ParentBased::boxed(root), with_part);
    Some(Chosen::Own(Box::new(sampler)))
}

#[cfg(test)]
mod tests {
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
    };
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
