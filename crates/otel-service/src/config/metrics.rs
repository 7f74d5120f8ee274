//! Settings of metrics: `OTEL_METRIC_EXPORT_*`, `OTEL_METRICS_EXEMPLAR_FILTER` and the preferences of the
//! OTLP metric exporter.

use std::time::Duration;

use std::fmt;
use std::sync::Arc;

use opentelemetry_sdk::metrics::{Instrument, Stream, Temporality};
use otlp_recorder::{Destination, ExemplarFilter};

use super::variables::Variables;

/// Settings of metrics other than their destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Measuring {
    /// Time between two exports.
    pub(crate) interval: Duration,
    /// Time limit of one export.
    pub(crate) timeout: Duration,
    pub(crate) temporality: Temporality,
    /// Default aggregation of histograms that no view selects.
    pub(crate) histograms: HistogramAggregation,
    pub(crate) exemplars: ExemplarFilter,
}

impl Default for Measuring {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            temporality: Temporality::Cumulative,
            histograms: HistogramAggregation::ExplicitBucket,
            exemplars: ExemplarFilter::TraceBased,
        }
    }
}

/// A view of the meter provider.
pub(crate) type View = Arc<dyn Fn(&Instrument) -> Option<Stream> + Send + Sync>;

/// Views of the meter provider.
#[derive(Clone, Default)]
pub(crate) struct Views(pub(crate) Vec<View>);

impl Views {
    #[cfg(feature = "config-file")]
    pub(super) fn add(&mut self, view: impl Fn(&Instrument) -> Option<Stream> + Send + Sync + 'static) {
        self.0.push(Arc::new(view));
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Views").field(&self.0.len()).finish()
    }
}

/// Default aggregation of histograms.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum HistogramAggregation {
    #[default]
    ExplicitBucket,
    Base2Exponential,
}

impl Measuring {
    /// Reads the variables; `interval` is the default in milliseconds. The temporality and the aggregation are those of OTLP
    /// exporters.
    pub(super) fn read(
        interval: u64,
        destination: Option<&Destination>,
        variables: &mut Variables<'_>,
    ) -> Self {
        let temporality = variables.choice(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            &[
                ("cumulative", Temporality::Cumulative),
                ("delta", Temporality::Delta),
                ("lowmemory", Temporality::LowMemory),
            ],
            "not cumulative, delta or lowmemory; cumulative is used",
        );
        let histograms = variables.choice(
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            &[
                ("explicit_bucket_histogram", HistogramAggregation::ExplicitBucket),
                (
                    "base2_exponential_bucket_histogram",
                    HistogramAggregation::Base2Exponential,
                ),
            ],
            "not a known aggregation; explicit_bucket_histogram is used",
        );
        Self {
            interval: variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", interval),
            timeout: variables.timeout("OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
            temporality: match destination {
                Some(Destination::Collector(_)) => temporality,
                _ => Temporality::Cumulative,
            },
            histograms: match destination {
                Some(_) => histograms,
                None => HistogramAggregation::ExplicitBucket,
            },
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
