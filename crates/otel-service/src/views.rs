//! The view of the instruments that no other view matches, and a warning about instruments that conflict.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream};
use otlp_recorder::LOG_TARGET;

use crate::config::{HistogramAggregation, View};

/// The view of all other instruments.
pub(crate) struct DefaultView {
    pub(crate) views: Vec<View>,
    pub(crate) histograms: HistogramAggregation,
    /// Maximum number of attribute sets of an instrument; `None` for the default of the SDK.
    pub(crate) cardinality_limit: Option<usize>,
    known: Mutex<HashMap<(String, String), (InstrumentKind, String)>>,
}

impl DefaultView {
    pub(crate) fn new(
        views: Vec<View>,
        histograms: HistogramAggregation,
        cardinality_limit: Option<usize>,
    ) -> Self {
        Self {
            views,
            histograms,
            cardinality_limit,
            known: Mutex::default(),
        }
    }

    /// Returns the stream of `instrument`, or `None` if another view or the default of the SDK applies.
    pub(crate) fn stream(&self, instrument: &Instrument) -> Option<Stream> {
        // Other views may resolve a conflict.
        if self.views.iter().any(|view| view(instrument).is_some()) {
            return None;
        }
        self.warn_of_conflict(instrument);
        let aggregation = self.histograms.aggregation(instrument);
        if aggregation.is_none() && self.cardinality_limit.is_none() {
            return None;
        }
        let mut stream = Stream::builder();
        if let Some(aggregation) = aggregation {
            stream = stream.with_aggregation(aggregation);
        }
        if let Some(limit) = self.cardinality_limit {
            stream = stream.with_cardinality_limit(limit);
        }
        stream.build().ok()
    }

    /// Warns if an instrument of the same scope and name has another kind or unit: backends keep only one of them.
    /// The SDK says so only at the level DEBUG.
    fn warn_of_conflict(&self, instrument: &Instrument) {
        let key = (
            instrument.scope().name().to_owned(),
            instrument.name().to_ascii_lowercase(),
        );
        let new = (instrument.kind(), instrument.unit().to_owned());
        let known = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(key).or_insert_with(|| new.clone()).clone()
        };
        if known != new {
            tracing::warn!(
                target: LOG_TARGET,
                "the metric {} is a {:?} of {:?} and a {:?} of {:?}; rename one of them",
                instrument.name(),
                known.0,
                known.1,
                new.0,
                new.1,
            );
        }
    }
}

impl HistogramAggregation {
    /// Returns the aggregation of `instrument` if it differs from the default of the SDK. Size and scale are the
    /// defaults of the specification.
    pub(crate) fn aggregation(self, instrument: &Instrument) -> Option<Aggregation> {
        (self == Self::Base2Exponential && instrument.kind() == InstrumentKind::Histogram).then_some(
            Aggregation::Base2ExponentialHistogram {
                max_size: 160,
                max_scale: 20,
                record_min_max: true,
            },
        )
    }
}
