//! Sampling and propagation of traces: `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` and
//! `OTEL_PROPAGATORS`.

use opentelemetry_sdk::trace::Sampler;

use super::variables::{Variables, shown};
use crate::b3::Encoding;

/// Header format for the trace context or baggage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Propagator {
    TraceContext,
    Baggage,
    B3(Encoding),
}

pub(super) fn sampler(variables: &mut Variables<'_>) -> Sampler {
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let name = variables.keyword("OTEL_TRACES_SAMPLER").unwrap_or_default();
    if !name.ends_with("traceidratio") && variables.text(ARGUMENT).is_some() {
        variables.warn(format!(
            "{ARGUMENT} has no effect without the sampler traceidratio"
        ));
    }
    named_sampler(variables)
}

fn named_sampler(variables: &mut Variables<'_>) -> Sampler {
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    let Some(name) = variables.keyword("OTEL_TRACES_SAMPLER") else {
        return parent_based(Sampler::AlwaysOn);
    };
    let root_name = name.strip_prefix("parentbased_");
    let sampler = match root_name.unwrap_or(&name) {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::TraceIdRatioBased(ratio(variables)),
        _ => {
            variables.warn(format!(
                "OTEL_TRACES_SAMPLER is {}, not a known sampler; parentbased_always_on is used",
                shown(&name)
            ));
            return parent_based(Sampler::AlwaysOn);
        }
    };
    match root_name {
        Some(_) => parent_based(sampler),
        None => sampler,
    }
}

fn ratio(variables: &mut Variables<'_>) -> f64 {
    let Some(text) = variables.text("OTEL_TRACES_SAMPLER_ARG") else {
        return 1.0;
    };
    match text.trim().parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            variables.warn("OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1; 1 is used");
            1.0
        }
    }
}

/// Returns the propagator with the name `name`.
pub(super) fn propagator(name: &str) -> Option<Propagator> {
    match name {
        "tracecontext" => Some(Propagator::TraceContext),
        "baggage" => Some(Propagator::Baggage),
        "b3" => Some(Propagator::B3(Encoding::Single)),
        "b3multi" => Some(Propagator::B3(Encoding::Multiple)),
        _ => None,
    }
}

/// Reads the propagators. Unknown ones are ignored; if all of them are unknown, the default is used.
pub(super) fn propagators(variables: &mut Variables<'_>) -> Vec<Propagator> {
    const DEFAULT: [Propagator; 2] = [Propagator::TraceContext, Propagator::Baggage];
    let Some(list) = variables.keyword("OTEL_PROPAGATORS") else {
        return DEFAULT.to_vec();
    };
    let mut propagators = Vec::new();
    for name in list.split(',').map(str::trim) {
        if name == "none" {
            return Vec::new();
        }
        let Some(propagator) = propagator(name) else {
            if !name.is_empty() {
                variables.warn(format!(
                    "OTEL_PROPAGATORS has {}, which is not a known propagator and is ignored",
                    shown(name)
                ));
            }
            continue;
        };
        if !propagators.contains(&propagator) {
            propagators.push(propagator);
        }
    }
    if propagators.is_empty() {
        variables.warn("OTEL_PROPAGATORS has no known propagator; tracecontext,baggage is used");
        return DEFAULT.to_vec();
    }
    propagators
}
