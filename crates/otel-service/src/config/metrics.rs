//! Settings of metrics: `OTEL_METRIC_EXPORT_*`, `OTEL_METRICS_EXEMPLAR_FILTER` and the preferences of the
//! OTLP metric exporter.

use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;
use otlp_recorder::ExemplarFilter;

use super::variables::Variables;

/// Settings of metrics other than their destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Measuring {
    /// Time between two exports.
    pub(crate) interval: Duration,
    /// Time limit of one export.
    pub(crate) timeout: Duration,
    pub(crate) temporality: Temporality,
    pub(crate) histograms: HistogramAggregation,
    pub(crate) exemplars: ExemplarFilter,
}

/// Default aggregation of histograms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HistogramAggregation {
    ExplicitBucket,
    Base2Exponential,
}

impl Measuring {
    /// Reads the variables; `interval` is the default in milliseconds.
    pub(super) fn read(interval: u64, variables: &mut Variables<'_>) -> Self {
        Self {
            interval: variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", interval),
            timeout: variables.timeout("OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
            temporality: variables.choice(
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
                &[
                    ("cumulative", Temporality::Cumulative),
                    ("delta", Temporality::Delta),
                    ("lowmemory", Temporality::LowMemory),
                ],
                "not cumulative, delta or lowmemory; cumulative is used",
            ),
            histograms: variables.choice(
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                &[
                    ("explicit_bucket_histogram", HistogramAggregation::ExplicitBucket),
                    (
                        "base2_exponential_bucket_histogram",
                        HistogramAggregation::Base2Exponential,
                    ),
                ],
                "not a known aggregation; explicit_bucket_histogram is used",
            ),
            exemplars: variables.choice(
                "OTEL_METRICS_EXEMPLAR_FILTER",
                &[
                    ("trace_based", ExemplarFilter::TraceBased),
                    ("always_on", ExemplarFilter::AlwaysOn),
                    ("always_off", ExemplarFilter::AlwaysOff),
                ],
                "not always_on, always_off or trace_based; trace_based is used",
            ),
        }
    }
}
