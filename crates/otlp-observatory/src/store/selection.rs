//! Series as they are looked for and taken out.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::{
    Attribute, Origin, Text,
    instrument::InstrumentType,
    metrics::Metrics,
    points::{KeptExemplar, Point},
    readings::{Reader, Reading},
    series::{Series, decode_attributes},
};

/// Which series are looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesSearch {
    pub(crate) name: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) instrument_type: Option<InstrumentType>,
    /// In the instrument's name, unit or description.
    pub(crate) text: Option<Text>,
    pub(crate) attributes: Vec<Attribute>,
}

impl SeriesSearch {
    pub(super) fn holds(&self, metrics: &Metrics, series: &Series) -> bool {
        let instrument = metrics.instrument(series);
        let texts = [&instrument.name, &instrument.unit, &instrument.description];
        let is_in_texts = |text: &Text| texts.iter().any(|of| text.is_in(of.as_bytes()));
        self.name.as_deref().is_none_or(|name| name == &*instrument.name)
            && self
                .instrument_type
                .is_none_or(|wanted| wanted == instrument.instrument_type)
            && self.text.as_ref().is_none_or(is_in_texts)
            && self
                .service
                .as_deref()
                .is_none_or(|service| service == &*metrics.origin(series).service)
            && (self.attributes.is_empty() || self.attributes_hold(metrics, series))
    }

    fn attributes_hold(&self, metrics: &Metrics, series: &Series) -> bool {
        let attributes = decode_attributes(&series.attributes);
        let resource = metrics.origin(series).resource();
        self.attributes
            .iter()
            .all(|wanted| wanted.is_in(&attributes) || wanted.is_in(&resource))
    }
}

/// A series without its points.
#[derive(Clone, Debug)]
pub(crate) struct SeriesHead {
    pub(crate) origin: Origin,
    pub(crate) name: Arc<str>,
    pub(crate) unit: Arc<str>,
    pub(crate) description: Arc<str>,
    pub(crate) instrument_type: InstrumentType,
    /// The time of the newest point, as the sender said.
    pub(crate) last: u64,
    attributes: Arc<[u8]>,
}

impl SeriesHead {
    pub(super) fn of(metrics: &Metrics, series: &Series) -> Self {
        let instrument = metrics.instrument(series);
        Self {
            origin: metrics.origin(series).clone(),
            name: instrument.name.clone(),
            unit: instrument.unit.clone(),
            description: instrument.description.clone(),
            instrument_type: instrument.instrument_type,
            last: series.points.back().map_or(0, |point| point.time),
            attributes: series.attributes.clone(),
        }
    }

    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
        decode_attributes(&self.attributes)
    }
}

/// A series with what its points say.
#[derive(Clone, Debug)]
pub(crate) struct SeriesReadings {
    pub(crate) head: SeriesHead,
    pub(crate) readings: Vec<Reading>,
    pub(crate) exemplars: Vec<KeptExemplar>,
}

/// A series with its points, copied out so that the lock is held shortly.
#[derive(Debug)]
pub(super) struct TakenSeries {
    head: SeriesHead,
    is_delta: bool,
    is_cut: bool,
    points: Vec<Point>,
    exemplars: Vec<KeptExemplar>,
}

impl TakenSeries {
    pub(super) fn of(metrics: &Metrics, series: &Series) -> Self {
        Self {
            head: SeriesHead::of(metrics, series),
            is_delta: metrics.instrument(series).is_delta,
            is_cut: series.is_cut,
            points: series.points.iter().cloned().collect(),
            exemplars: series.exemplars.iter().cloned().collect(),
        }
    }

    pub(super) fn read(self, watched_since: u64) -> SeriesReadings {
        let reader = Reader {
            instrument_type: self.head.instrument_type,
            is_delta: self.is_delta,
            is_cut: self.is_cut,
            watched_since,
        };
        SeriesReadings {
            readings: reader.read(&self.points),
            head: self.head,
            exemplars: self.exemplars,
        }
    }
}
