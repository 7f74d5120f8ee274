//! How metrics are read and what they are made of: `OTEL_METRIC_EXPORT_*`, `OTEL_METRICS_EXEMPLAR_FILTER` and the
//! preferences of the OTLP metric exporter.

use std::time::Duration;

use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream, Temporality};

use super::variables::Variables;

/// Everything about metrics but where they go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Measuring {
    /// Between two exports.
    pub(crate) interval: Duration,
    /// Of one export.
    pub(crate) timeout: Duration,
    pub(crate) temporality: Temporality,
    pub(crate) histograms: HistogramAggregation,
    pub(crate) exemplars: ExemplarFilter,
}

/// Which measurements may become exemplars.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ExemplarFilter {
    AlwaysOn,
    AlwaysOff,
    /// Those in a sampled span.
    TraceBased,
}

/// What histograms are made of where the code does not say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HistogramAggregation {
    ExplicitBucket,
    Base2Exponential,
}

impl Measuring {
    /// `interval` in milliseconds holds where no variable says otherwise.
    pub(super) fn read(interval: u64, variables: &mut Variables<'_>) -> Self {
        Self {
            interval: variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", interval),
            timeout: variables.timeout("OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
            temporality: temporality(variables),
            histograms: histograms(variables),
            exemplars: exemplars(variables),
        }
    }
}

impl HistogramAggregation {
    /// The stream of `instrument`, where it is another than the SDK's own choice. Size and scale are the specification's
    /// defaults.
    pub(crate) fn stream(self, instrument: &Instrument) -> Option<Stream> {
        if self == Self::ExplicitBucket || instrument.kind() != InstrumentKind::Histogram {
            return None;
        }
        let aggregation = Aggregation::Base2ExponentialHistogram {
            max_size: 160,
            max_scale: 20,
            record_min_max: true,
        };
        Stream::builder().with_aggregation(aggregation).build().ok()
    }
}

fn temporality(variables: &mut Variables<'_>) -> Temporality {
    let variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match variables.keyword(variable).as_deref() {
        None | Some("cumulative") => Temporality::Cumulative,
        Some("delta") => Temporality::Delta,
        Some("lowmemory") => Temporality::LowMemory,
        Some(_) => {
            variables.warn(format!("{variable} is not known; cumulative is used"));
            Temporality::Cumulative
        }
    }
}

fn histograms(variables: &mut Variables<'_>) -> HistogramAggregation {
    let variable = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    match variables.keyword(variable).as_deref() {
        None | Some("explicit_bucket_histogram") => HistogramAggregation::ExplicitBucket,
        Some("base2_exponential_bucket_histogram") => HistogramAggregation::Base2Exponential,
        Some(_) => {
            variables.warn(format!(
                "{variable} is not known; explicit_bucket_histogram is used"
            ));
            HistogramAggregation::ExplicitBucket
        }
    }
}

fn exemplars(variables: &mut Variables<'_>) -> ExemplarFilter {
    let variable = "OTEL_METRICS_EXEMPLAR_FILTER";
    match variables.keyword(variable).as_deref() {
        None | Some("trace_based") => ExemplarFilter::TraceBased,
        Some("always_on") => ExemplarFilter::AlwaysOn,
        Some("always_off") => ExemplarFilter::AlwaysOff,
        Some(_) => {
            variables.warn(format!("{variable} is not known; trace_based is used"));
            ExemplarFilter::TraceBased
        }
    }
}
