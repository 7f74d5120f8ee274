//! Histograms with exemplars: a measurement, mostly a duration, is recorded with the SDK and offered to the
//! reservoir of its attributes.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter};
use opentelemetry::trace::SpanContext;

use crate::exemplar::{Exemplars, MAX_RESERVOIRS, Reservoir, Reservoirs};
use crate::table::Table;

/// A histogram, of seconds unless it has another unit, that keeps exemplars.
#[derive(Debug)]
pub struct DurationHistogram {
    histogram: Histogram<f64>,
    series: Table<Vec<KeyValue>, DurationSeries>,
    reservoirs: Arc<Reservoirs>,
}

impl DurationHistogram {
    /// Creates the histogram `name`, whose buckets have the upper bounds `bounds` in seconds.
    #[must_use]
    pub fn new(
        meter: &Meter,
        exemplars: &Exemplars,
        name: &'static str,
        description: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        Self::with_unit(meter, exemplars, name, "s", description, bounds)
    }

    /// Creates a histogram of another unit, in which the bounds and the recorded values are.
    #[must_use]
    pub fn with_unit(
        meter: &Meter,
        exemplars: &Exemplars,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        // Before the histogram is created, so that the meter adds no exemplars of its own.
        let reservoirs = exemplars.reservoirs(name, bounds, false);
        reservoirs.set_explicit();
        #[expect(
            clippy::disallowed_methods,
            reason = "the lint directs users of SDK histograms to this type"
        )]
        let histogram = meter.f64_histogram(name);
        Self {
            histogram: histogram
                .with_unit(unit)
                .with_description(description)
                .with_boundaries(bounds.to_vec())
                .build(),
            series: Table::new(MAX_RESERVOIRS),
            reservoirs,
        }
    }

    /// Records a duration that was measured in `span`.
    pub fn record(&self, seconds: f64, attributes: &[KeyValue], span: &SpanContext) {
        match self.series.get(attributes, || self.bind(attributes)) {
            Some(series) => series.record(seconds, span),
            None => self.histogram.record(seconds, attributes),
        }
    }

    /// Returns the series of `attributes`, for repeated measurements with the same attributes.
    #[must_use]
    pub fn series(&self, attributes: &[KeyValue]) -> DurationSeries {
        let series = self.series.get(attributes, || self.bind(attributes));
        series.cloned().unwrap_or_else(|| DurationSeries {
            histogram: self.histogram.bind(attributes),
            reservoir: None,
        })
    }

    fn bind(&self, attributes: &[KeyValue]) -> DurationSeries {
        DurationSeries {
            histogram: self.histogram.bind(attributes),
            reservoir: self.reservoirs.open(attributes),
        }
    }
}

/// A histogram series with one set of attributes; cheap to clone.
#[derive(Clone, Debug)]
pub struct DurationSeries {
    histogram: BoundHistogram<f64>,
    reservoir: Option<Arc<Reservoir>>,
}

impl DurationSeries {
    /// Records a duration that was measured in `span`.
    pub fn record(&self, seconds: f64, span: &SpanContext) {
        self.histogram.record(seconds);
        if let Some(reservoir) = &self.reservoir {
            reservoir.offer(seconds, span);
        }
    }
}
