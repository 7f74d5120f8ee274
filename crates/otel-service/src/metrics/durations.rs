//! Histograms of seconds. Every duration that this crate measures goes through [`Durations`], which records it with the
//! SDK and offers it to the exemplar reservoir of its attributes.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{BoundHistogram, Meter};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::table::Table;
use super::{Instruments, SECONDS};
use crate::exemplar::{self, Reservoir, Reservoirs};

/// How many attribute sets of one histogram are recorded without looking them up in the SDK, and have exemplars. More
/// than any of ours has; the SDK itself keeps 2,000.
pub(crate) const SERIES_LIMIT: usize = 512;

/// A histogram of seconds that keeps exemplars.
#[derive(Debug)]
pub(crate) struct Durations {
    histogram: opentelemetry::metrics::Histogram<f64>,
    series: Table<Vec<KeyValue>, Series>,
    reservoirs: Arc<Reservoirs>,
}

impl Durations {
    /// `bounds` are the upper ends of the buckets in seconds.
    pub(crate) fn new(
        meter: &Meter,
        name: &'static str,
        description: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the wrapper that the others are told to use"
        )]
        let histogram = meter.f64_histogram(name);
        Self {
            histogram: histogram
                .with_unit("s")
                .with_description(description)
                .with_boundaries(bounds.to_vec())
                .build(),
            series: Table::new(SERIES_LIMIT),
            reservoirs: exemplar::reservoirs(name, bounds),
        }
    }

    /// Records a duration that was measured in `span`.
    pub(crate) fn record(&self, seconds: f64, attributes: &[KeyValue], span: &SpanContext) {
        match self.series.get(attributes, || self.bind(attributes)) {
            Some(series) => series.record(seconds, span),
            None => self.histogram.record(seconds, attributes),
        }
    }

    /// The series of `attributes`, for whoever keeps it rather than to name the attributes at every measurement.
    pub(crate) fn series(&self, attributes: &[KeyValue]) -> Series {
        let series = self.series.get(attributes, || self.bind(attributes));
        series.cloned().unwrap_or_else(|| Series {
            histogram: self.histogram.bind(attributes),
            reservoir: None,
        })
    }

    fn bind(&self, attributes: &[KeyValue]) -> Series {
        Series {
            histogram: self.histogram.bind(attributes),
            reservoir: self.reservoirs.open(attributes),
        }
    }
}

/// The durations with one set of attributes; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    histogram: BoundHistogram<f64>,
    reservoir: Option<Arc<Reservoir>>,
}

impl Series {
    pub(crate) fn record(&self, seconds: f64, span: &SpanContext) {
        self.histogram.record(seconds);
        if let Some(reservoir) = &self.reservoir {
            reservoir.offer(seconds, span);
        }
    }
}

/// A histogram of durations in seconds. Recording before [`crate::init`], or with metrics switched off, does nothing.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    description: &'static str,
    instrument: Instruments<Durations>,
}

/// Declares a histogram of seconds with the boundaries that the semantic conventions advise.
///
/// ```
/// use std::time::Duration;
///
/// static RENDERING: otel_service::Histogram =
///     otel_service::histogram("page.render.duration", "Duration of rendering a page.");
/// RENDERING.record(Duration::from_millis(3), &[otel_service::KeyValue::new("page", "home")]);
/// ```
pub const fn histogram(name: &'static str, description: &'static str) -> Histogram {
    Histogram {
        name,
        description,
        instrument: Instruments::new(),
    }
}

impl Histogram {
    /// Records one duration, with the span in force as its exemplar when `OTEL_METRICS_EXEMPLAR_FILTER` allows. The
    /// attributes must be few and of bounded variety: only the first 512 sets have exemplars, and those after the
    /// SDK's 2,000 are recorded together as `otel.metric.overflow`.
    pub fn record(&self, duration: Duration, attributes: &[KeyValue]) {
        let instrument = self
            .instrument
            .get(|meter| Durations::new(meter, self.name, self.description, &SECONDS));
        if let Some(instrument) = instrument {
            Context::map_current(|cx| {
                instrument.record(duration.as_secs_f64(), attributes, cx.span().span_context());
            });
        }
    }
}
