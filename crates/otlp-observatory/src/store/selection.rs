//! Filters for metric series, and the copies of series that queries return.

use std::sync::Arc;

use opentelemetry_proto::tonic::{common::v1::KeyValue, metrics::v1::Exemplar};
use prost::Message as _;

use super::{
    Attribute, Source, Text,
    instrument::{Instrument, InstrumentType},
    metrics::Metrics,
    readings::{Reader, Reading},
    series::{Series, decode_attributes},
};

/// Filters for series; a series must match all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesSearch {
    pub(crate) name: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) instrument_type: Option<InstrumentType>,
    /// Text in the instrument's name, unit or description.
    pub(crate) text: Option<Text>,
    pub(crate) attributes: Vec<Attribute>,
}

impl SeriesSearch {
    pub(super) fn matches(&self, metrics: &Metrics, series: &Series) -> bool {
        let instrument = metrics.instrument(series);
        let source = metrics.source(series);
        let is_of_type = |wanted| wanted == instrument.instrument_type;
        let is_of_service = |service: &str| service == &*source.service;
        let is_in_texts = |text: &Text| {
            let mut texts = instrument.texts().into_iter();
            texts.any(|field| text.is_in(field.as_bytes()))
        };
        self.name.as_deref().is_none_or(|name| name == &*instrument.name)
            && self.instrument_type.is_none_or(is_of_type)
            && self.text.as_ref().is_none_or(is_in_texts)
            && self.service.as_deref().is_none_or(is_of_service)
            && (self.attributes.is_empty() || self.attributes_match(source, series))
    }

    fn attributes_match(&self, source: &Source, series: &Series) -> bool {
        let attributes = decode_attributes(&series.attributes);
        let resource = source.resource();
        self.attributes
            .iter()
            .all(|wanted| wanted.is_in(&attributes) || wanted.is_in(&resource))
    }
}

/// Description of a series without its points.
#[derive(Clone, Debug)]
pub(crate) struct SeriesDescriptor {
    pub(crate) source: Source,
    pub(crate) instrument: Instrument,
    /// Timestamp of the newest point, set by the sender.
    pub(crate) last: u64,
    attributes: Arc<[u8]>,
}

impl SeriesDescriptor {
    pub(super) fn of(metrics: &Metrics, series: &Series) -> Self {
        Self {
            source: metrics.source(series).clone(),
            instrument: metrics.instrument(series).clone(),
            last: series.points.back().map_or(0, |point| point.time),
            attributes: series.attributes.clone(),
        }
    }

    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
        decode_attributes(&self.attributes)
    }
}

/// Series with the readings of its points.
#[derive(Clone, Debug)]
pub(crate) struct SeriesReadings {
    pub(crate) descriptor: SeriesDescriptor,
    pub(crate) readings: Vec<Reading>,
    pub(crate) exemplars: Vec<Exemplar>,
}

impl SeriesReadings {
    /// Computes the readings of `series`. A series that started at `observed_since` or later was observed
    /// from its start.
    pub(super) fn new(descriptor: SeriesDescriptor, mut series: Series, observed_since: u64) -> Self {
        let reader = Reader {
            instrument_type: descriptor.instrument.instrument_type,
            is_delta: descriptor.instrument.is_delta,
            is_truncated: series.is_truncated,
            observed_since,
        };
        Self {
            readings: reader.read(series.points.make_contiguous()),
            descriptor,
            exemplars: series
                .exemplars
                .iter()
                .map(|exemplar| Exemplar::decode(&**exemplar).unwrap_or_default())
                .collect(),
        }
    }
}
