//! Sampling and propagation of traces: `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` and
//! `OTEL_PROPAGATORS`.

use opentelemetry_sdk::trace::Sampler;

use super::variables::Variables;
use crate::b3::Encoding;

/// Header format for the trace context or baggage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Propagator {
    TraceContext,
    Baggage,
    B3(Encoding),
}

pub(super) fn sampler(variables: &mut Variables<'_>) -> Sampler {
    let name = variables.keyword("OTEL_TRACES_SAMPLER").unwrap_or_default();
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    match name.as_str() {
        "" | "parentbased_always_on" => parent_based(Sampler::AlwaysOn),
        "parentbased_always_off" => parent_based(Sampler::AlwaysOff),
        "parentbased_traceidratio" => parent_based(Sampler::TraceIdRatioBased(ratio(variables))),
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::TraceIdRatioBased(ratio(variables)),
        _ => {
            variables.warn("OTEL_TRACES_SAMPLER is not a known sampler; parentbased_always_on is used");
            parent_based(Sampler::AlwaysOn)
        }
    }
}

fn ratio(variables: &mut Variables<'_>) -> f64 {
    let argument = variables.text("OTEL_TRACES_SAMPLER_ARG");
    let ratio = argument
        .as_deref()
        .map_or(Some(1.0), |text| text.trim().parse::<f64>().ok())
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.unwrap_or_else(|| {
        variables.warn("OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1; 1 is used");
        1.0
    })
}

pub(super) fn propagators(variables: &mut Variables<'_>) -> Vec<Propagator> {
    let list = variables
        .keyword("OTEL_PROPAGATORS")
        .unwrap_or_else(|| "tracecontext,baggage".to_owned());
    let mut propagators = Vec::new();
    for name in list.split(',').map(str::trim) {
        let propagator = match name {
            "tracecontext" => Propagator::TraceContext,
            "baggage" => Propagator::Baggage,
            "b3" => Propagator::B3(Encoding::Single),
            "b3multi" => Propagator::B3(Encoding::Multiple),
            "none" => return Vec::new(),
            "" => continue,
            _ => {
                variables.warn("OTEL_PROPAGATORS has an unknown propagator, which is ignored");
                continue;
            }
        };
        if !propagators.contains(&propagator) {
            propagators.push(propagator);
        }
    }
    propagators
}
