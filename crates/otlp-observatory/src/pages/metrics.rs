//! `/metrics` and `/metrics/{name}`: the list of instruments, and the series of an instrument with their
//! readings.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::{self, v1::exemplar},
};
use serde::Serialize;

use super::{
    error::PageError,
    explorer::Explorer,
    json::{Attributes, Value},
    parameters::Parameters,
};
use crate::store::{InstrumentType, Reading, SeriesDescriptor, SeriesSearch, SpanId, TraceId, UnixNano};

/// Maximum number of values per attribute in the list.
const MAX_VALUES: usize = 20;

/// Maximum number of attributes per instrument in the list.
const MAX_KEYS: usize = 32;

/// Maximum number of instruments in the list.
const MAX_INSTRUMENTS: usize = 1_000;

/// Maximum number of series of an instrument; the most recently updated are returned.
const MAX_SERIES: usize = 100;

/// Maximum number of exemplars of an instrument; the newest are returned.
const MAX_EXEMPLARS: usize = 500;

#[derive(Serialize)]
pub(super) struct List {
    instruments: Vec<Instrument>,
}

/// Instrument in the list.
#[derive(Serialize)]
struct Instrument {
    name: Arc<str>,
    #[serde(flatten)]
    of_service: Match,
    attributes: BTreeMap<String, BTreeSet<String>>,
    last_unix_nano: UnixNano,
}

#[derive(Serialize)]
pub(super) struct Details {
    name: String,
    service: Arc<str>,
    #[serde(rename = "type")]
    instrument_type: InstrumentType,
    unit: Arc<str>,
    description: Arc<str>,
    matches: Vec<Match>,
    series: Vec<Series>,
    exemplars: Vec<Exemplar>,
}

/// Service and type of an instrument with the requested name.
#[derive(Serialize)]
struct Match {
    service: Arc<str>,
    #[serde(rename = "type")]
    instrument_type: InstrumentType,
    unit: Arc<str>,
    description: Arc<str>,
    series: usize,
}

#[derive(Serialize)]
struct Series {
    attributes: Attributes<Vec<KeyValue>>,
    scope: Arc<str>,
    resource: Attributes<Vec<KeyValue>>,
    points: Vec<Reading>,
}

#[derive(Serialize)]
struct Exemplar {
    time_unix_nano: UnixNano,
    value: f64,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    attributes: Attributes<Vec<KeyValue>>,
}

pub(super) fn list(explorer: &Explorer, parameters: &mut Parameters) -> Result<List, PageError> {
    let search = SeriesSearch {
        service: parameters.text("service")?,
        text: parameters.search("text")?,
        ..SeriesSearch::default()
    };
    parameters.finish()?;
    let mut instruments: BTreeMap<_, Instrument> = BTreeMap::new();
    for series in explorer.store.series(&search) {
        let key = (
            series.instrument.name.clone(),
            series.source.service.clone(),
            series.instrument.instrument_type,
        );
        instruments
            .entry(key)
            .or_insert_with(|| Instrument {
                name: series.instrument.name.clone(),
                of_service: Match::new(&series),
                attributes: BTreeMap::new(),
                last_unix_nano: UnixNano(0),
            })
            .add(&series);
    }
    let instruments = instruments.into_values().take(MAX_INSTRUMENTS).collect();
    Ok(List { instruments })
}

pub(super) fn instrument(explorer: &Explorer, parameters: &mut Parameters) -> Result<Details, PageError> {
    let name = parameters.text("name")?.unwrap_or_default();
    let wanted = parameters.text("service")?;
    let attributes = parameters.attributes()?;
    let (from, to) = (parameters.timestamp("from")?, parameters.timestamp("to")?);
    parameters.finish()?;
    let mut search = SeriesSearch {
        name: Some(name.clone()),
        ..SeriesSearch::default()
    };
    let mut matches: BTreeMap<_, Match> = BTreeMap::new();
    for series in explorer.store.series(&search) {
        let key = (series.source.service.clone(), series.instrument.instrument_type);
        matches.entry(key).or_insert_with(|| Match::new(&series)).series += 1;
    }
    let matches: Vec<_> = matches.into_values().collect();
    let chosen = matches
        .iter()
        .find(|found| wanted.as_deref().is_none_or(|wanted| wanted == &*found.service))
        .ok_or(PageError::NotStored("instrument"))?;
    search.service = Some(chosen.service.to_string());
    search.instrument_type = Some(chosen.instrument_type);
    search.attributes = attributes;
    let window = from.unwrap_or(0)..=to.unwrap_or(u64::MAX);

    let (mut series, mut exemplars) = (Vec::new(), Vec::new());
    for mut found in explorer.store.readings(&search, MAX_SERIES) {
        found
            .readings
            .retain(|reading| window.contains(&reading.time_unix_nano.0));
        series.push(Series {
            attributes: Attributes(found.descriptor.attributes()),
            resource: Attributes(found.descriptor.source.resource()),
            scope: found.descriptor.source.scope,
            points: found.readings,
        });
        let exemplars_of_series = found.exemplars.into_iter().filter_map(Exemplar::new);
        exemplars.extend(exemplars_of_series.filter(|exemplar| window.contains(&exemplar.time_unix_nano.0)));
    }
    exemplars.sort_by_key(|exemplar| Reverse(exemplar.time_unix_nano));
    exemplars.truncate(MAX_EXEMPLARS);
    Ok(Details {
        name,
        service: chosen.service.clone(),
        instrument_type: chosen.instrument_type,
        unit: chosen.unit.clone(),
        description: chosen.description.clone(),
        matches,
        series,
        exemplars,
    })
}

impl Exemplar {
    /// Returns `None` if the exemplar has no value.
    fn new(exemplar: metrics::v1::Exemplar) -> Option<Self> {
        Some(Self {
            time_unix_nano: UnixNano(exemplar.time_unix_nano),
            value: match exemplar.value? {
                exemplar::Value::AsDouble(value) => value,
                exemplar::Value::AsInt(value) => value as f64,
            },
            trace_id: TraceId::from_bytes(&exemplar.trace_id),
            span_id: SpanId::from_bytes(&exemplar.span_id),
            attributes: Attributes(exemplar.filtered_attributes),
        })
    }
}

impl Instrument {
    fn add(&mut self, series: &SeriesDescriptor) {
        self.of_service.series += 1;
        self.last_unix_nano = self.last_unix_nano.max(UnixNano(series.last));
        for attribute in series.attributes() {
            if self.attributes.len() == MAX_KEYS && !self.attributes.contains_key(&attribute.key) {
                continue;
            }
            let values = self.attributes.entry(attribute.key).or_default();
            if values.len() < MAX_VALUES {
                values.insert(Value(attribute.value.as_ref()).to_text());
            }
        }
    }
}

impl Match {
    fn new(series: &SeriesDescriptor) -> Self {
        Self {
            service: series.source.service.clone(),
            instrument_type: series.instrument.instrument_type,
            unit: series.instrument.unit.clone(),
            description: series.instrument.description.clone(),
            series: 0,
        }
    }
}
