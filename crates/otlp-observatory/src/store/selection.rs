//! Filters for metric series, and the copies of series that queries return.

use std::{cmp::Ordering, ops::RangeInclusive, sync::Arc};

use opentelemetry_proto::tonic::{common::v1::KeyValue, metrics::v1::Exemplar};
use prost::Message as _;

use super::{
    Attribute, Source, Text,
    fair_lock::FairLock,
    instrument::{Instrument, InstrumentType},
    metrics::Metrics,
    number::Number,
    points::Point,
    readings::{Reader, Sample},
    series::{Series, decode_attributes},
    totals::Totals,
};

/// Number of places in the table of series that are visited without releasing the lock.
const VISITED_AT_ONCE: usize = 256;

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

/// Series with its interpreted points.
#[derive(Clone, Debug)]
pub(crate) struct SeriesSamples {
    pub(crate) descriptor: SeriesDescriptor,
    pub(crate) totals: Totals,
    pub(crate) samples: Vec<Sample>,
    pub(crate) exemplars: Vec<Exemplar>,
}

/// Question for the points of series.
#[derive(Clone, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) series: &'a SeriesSearch,
    /// Bounds of the points' timestamps.
    pub(crate) window: RangeInclusive<u64>,
    /// Earliest start of a series that was observed from its start.
    pub(crate) observed_since: u64,
}

impl Query<'_> {
    /// Returns the number of series that match, and the `limit` largest with their samples. The size of a
    /// series is its total.
    pub(super) fn largest(&self, metrics: &FairLock<Metrics>, limit: usize) -> (usize, Vec<SeriesSamples>) {
        let metrics = metrics.read();
        let mut series: Vec<_> = metrics
            .series()
            .filter(|series| self.series.matches(&metrics, series))
            .collect();
        let found = series.len();
        series.sort_by(|a, b| by_size(&a.totals, &b.totals));
        series.truncate(limit);
        // The points are copied, so that the lock can be released before they are interpreted.
        let copies: Vec<_> = series
            .into_iter()
            .map(|series| self.copy(&metrics, series))
            .collect();
        drop(metrics);
        (
            found,
            copies.into_iter().map(|copy| self.interpret(copy)).collect(),
        )
    }

    /// Calls `visit` with every series that matches. The lock is released every few series.
    pub(super) fn visit(&self, metrics: &FairLock<Metrics>, mut visit: impl FnMut(&Metrics, &Series)) {
        let mut start = 0;
        loop {
            let metrics = metrics.read();
            let (series, is_last) = metrics.series_in(start..start + VISITED_AT_ONCE);
            for series in series.filter(|series| self.series.matches(&metrics, series)) {
                visit(&metrics, series);
            }
            if is_last {
                return;
            }
            start += VISITED_AT_ONCE;
        }
    }

    /// Calls `visit` with the samples of every series that matches, without a lock.
    pub(super) fn visit_samples(&self, metrics: &FairLock<Metrics>, mut visit: impl FnMut(SeriesSamples)) {
        let mut start = 0;
        loop {
            let (copies, is_last) = {
                let metrics = metrics.read();
                let (series, is_last) = metrics.series_in(start..start + VISITED_AT_ONCE);
                let series = series.filter(|series| self.series.matches(&metrics, series));
                let copies: Vec<_> = series.map(|series| self.copy(&metrics, series)).collect();
                (copies, is_last)
            };
            copies.into_iter().for_each(|copy| visit(self.interpret(copy)));
            if is_last {
                return;
            }
            start += VISITED_AT_ONCE;
        }
    }

    /// Copies a series without the points before the window, except for the last of them.
    fn copy(&self, metrics: &Metrics, series: &Series) -> (SeriesDescriptor, Series) {
        let is_wanted = |point: &Point| point.time >= *self.window.start();
        let first = series.points.iter().position(is_wanted);
        let skipped = first.unwrap_or(series.points.len()).saturating_sub(1);
        (
            SeriesDescriptor::of(metrics, series),
            series.without_first(skipped),
        )
    }

    fn interpret(&self, (descriptor, mut series): (SeriesDescriptor, Series)) -> SeriesSamples {
        let points = &*series.points.make_contiguous();
        let is_sum = |point: &Point| point.value.as_number();
        let reader = Reader {
            instrument_type: descriptor.instrument.instrument_type,
            is_delta: descriptor.instrument.is_delta,
            is_truncated: series.is_truncated,
            observed_since: self.observed_since,
            evicted: match series.is_truncated {
                true => points
                    .iter()
                    .filter_map(is_sum)
                    .fold(series.totals.value, Number::minus),
                false => Number::ZERO,
            },
        };
        let mut samples = reader.read(points);
        samples.retain(|sample| self.window.contains(&sample.time));
        SeriesSamples {
            samples,
            descriptor,
            totals: series.totals,
            exemplars: series
                .exemplars
                .iter()
                .map(|exemplar| Exemplar::decode(&**exemplar).unwrap_or_default())
                .collect(),
        }
    }
}

/// Compares totals in descending order; values that are not numbers come last.
pub(super) fn by_size(a: &Totals, b: &Totals) -> Ordering {
    let size = |totals: &Totals| Some(totals.value.to_f64()).filter(|size| !size.is_nan());
    size(b).partial_cmp(&size(a)).unwrap_or(Ordering::Equal)
}
