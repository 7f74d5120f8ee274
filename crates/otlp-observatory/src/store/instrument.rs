//! Metric instruments: name, unit, type and temporality.

use std::sync::Arc;

use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, metric::Data};

use super::{
    intern::{Footprint, InternId, Interner},
    memory,
    source::Source,
};

/// Kind of instrument, which determines how its points are interpreted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InstrumentType {
    Counter,
    #[serde(rename = "updowncounter")]
    UpDownCounter,
    Gauge,
    Histogram,
    ExponentialHistogram,
    Summary,
}

/// Instrument of a resource and scope.
#[derive(Clone, Debug)]
pub(crate) struct Instrument {
    pub(super) source: InternId,
    pub(crate) name: Arc<str>,
    pub(crate) unit: Arc<str>,
    pub(crate) description: Arc<str>,
    pub(crate) instrument_type: InstrumentType,
    /// Whether the temporality is delta: points count from the previous point instead of from the start.
    pub(crate) is_delta: bool,
}

impl InstrumentType {
    /// Returns the instrument type of `data`, and whether its temporality is delta.
    fn of(data: &Data) -> (Self, bool) {
        let (instrument_type, temporality) = match data {
            Data::Gauge(_) => (Self::Gauge, 0),
            Data::Sum(sum) if sum.is_monotonic => (Self::Counter, sum.aggregation_temporality),
            Data::Sum(sum) => (Self::UpDownCounter, sum.aggregation_temporality),
            Data::Histogram(histogram) => (Self::Histogram, histogram.aggregation_temporality),
            Data::ExponentialHistogram(histogram) => {
                (Self::ExponentialHistogram, histogram.aggregation_temporality)
            }
            Data::Summary(_) => (Self::Summary, 0),
        };
        (
            instrument_type,
            temporality == AggregationTemporality::Delta as i32,
        )
    }
}

impl Instrument {
    /// Interns the instrument of `metric`, whose `data` is passed separately, and adds a reference to it.
    pub(super) fn intern(
        instruments: &mut Interner<Self>,
        sources: &mut Interner<Source>,
        metric: &Metric,
        data: &Data,
        source: InternId,
    ) -> InternId {
        let (instrument_type, is_delta) = InstrumentType::of(data);
        let texts = [&*metric.name, &*metric.unit, &*metric.description];
        let key = (source, texts, instrument_type, is_delta);
        let same = |known: &Self| (known.source, known.texts(), known.instrument_type, known.is_delta) == key;
        let make = || {
            sources.retain(source);
            Self {
                source,
                name: texts[0].into(),
                unit: texts[1].into(),
                description: texts[2].into(),
                instrument_type,
                is_delta,
            }
        };
        instruments.intern(&key, same, make)
    }

    /// Returns the name, unit and description.
    pub(super) fn texts(&self) -> [&str; 3] {
        [&self.name, &self.unit, &self.description]
    }

    /// Removes a reference to an instrument.
    pub(super) fn release(
        instruments: &mut Interner<Self>,
        sources: &mut Interner<Source>,
        instrument: InternId,
    ) {
        if let Some(last) = instruments.release(instrument) {
            sources.release(last.source);
        }
    }
}

impl Footprint for Instrument {
    fn heap_bytes(&self) -> usize {
        self.texts().map(|text| memory::shared(text.len())).iter().sum()
    }
}
