//! Instruments of metrics: what is measured, in which unit, and how points of it are to be read.

use std::sync::Arc;

use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, metric::Data};

use super::{
    intern::{Footprint, Interner, Novelty, Shared},
    memory,
    origin::Origin,
};

/// What an instrument measures, and how its points are to be read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum InstrumentType {
    Counter,
    UpDownCounter,
    Gauge,
    Histogram,
    ExponentialHistogram,
    Summary,
}

/// An instrument of one origin.
#[derive(Clone, Debug)]
pub(crate) struct Instrument {
    pub(super) origin: Shared,
    pub(crate) name: Arc<str>,
    pub(crate) unit: Arc<str>,
    pub(crate) description: Arc<str>,
    pub(crate) instrument_type: InstrumentType,
    /// Whether a point counts since the one before, not since the start.
    pub(crate) is_delta: bool,
}

impl InstrumentType {
    /// The type of what `data` is of, and whether its points count since the one before.
    fn of(data: &Data) -> (Self, bool) {
        let is_delta = |temporality| temporality == AggregationTemporality::Delta as i32;
        match data {
            Data::Gauge(_) => (Self::Gauge, false),
            Data::Sum(sum) if sum.is_monotonic => (Self::Counter, is_delta(sum.aggregation_temporality)),
            Data::Sum(sum) => (Self::UpDownCounter, is_delta(sum.aggregation_temporality)),
            Data::Histogram(histogram) => (Self::Histogram, is_delta(histogram.aggregation_temporality)),
            Data::ExponentialHistogram(histogram) => (
                Self::ExponentialHistogram,
                is_delta(histogram.aggregation_temporality),
            ),
            Data::Summary(_) => (Self::Summary, false),
        }
    }
}

impl Instrument {
    /// The instrument that `metric` with `data` is of; one user of it more.
    pub(super) fn intern(
        instruments: &mut Interner<Self>,
        origins: &mut Interner<Origin>,
        metric: &Metric,
        data: &Data,
        origin: Shared,
    ) -> Shared {
        let (instrument_type, is_delta) = InstrumentType::of(data);
        let key = (
            origin,
            &metric.name,
            &metric.unit,
            &metric.description,
            instrument_type,
            is_delta,
        );
        let same = |known: &Self| {
            let Self {
                origin,
                name,
                unit,
                description,
                instrument_type,
                is_delta,
            } = known;
            [&**name, &**unit, &**description] == [&*metric.name, &*metric.unit, &*metric.description]
                && (*origin, *instrument_type, *is_delta) == (key.0, key.4, key.5)
        };
        let make = || Self {
            origin,
            name: metric.name.as_str().into(),
            unit: metric.unit.as_str().into(),
            description: metric.description.as_str().into(),
            instrument_type,
            is_delta,
        };
        let (shared, novelty) = instruments.intern(&key, same, make);
        if novelty == Novelty::New {
            origins.retain(origin);
        }
        shared
    }

    /// One user of an instrument less.
    pub(super) fn release(
        instruments: &mut Interner<Self>,
        origins: &mut Interner<Origin>,
        instrument: Shared,
    ) {
        if let Some(last) = instruments.release(instrument) {
            origins.release(last.origin);
        }
    }
}

impl Footprint for Instrument {
    fn heap_bytes(&self) -> usize {
        let texts = [&self.name, &self.unit, &self.description];
        texts.into_iter().map(|text| memory::shared(text.len())).sum()
    }
}
