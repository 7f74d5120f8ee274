//! `/metrics` and `/metrics/{name}`: the list of instruments, and the series of an instrument with their
//! readings.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use serde::Serialize;

use super::{
    answer::json,
    json::{Attributes, Value},
    page::{Explorer, Page},
    parameters::Parameters,
    refusal::Refusal,
};
use crate::store::{
    InstrumentType, Reading, SeriesDescriptor, SeriesReadings, SeriesSearch, Source, SpanId, StoredExemplar,
    TraceId, UnixNano,
};

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

pub(super) const LIST: Page = Page {
    parameters: &["service", "text"],
    is_time_dependent: false,
    compute: list,
};

pub(super) const ONE: Page = Page {
    parameters: &["service", "attribute", "from", "to"],
    is_time_dependent: false,
    compute: one,
};

#[derive(Serialize)]
struct List {
    instruments: Vec<Instrument>,
}

#[derive(Serialize)]
struct Instrument {
    name: Arc<str>,
    service: Arc<str>,
    #[serde(rename = "type")]
    instrument_type: &'static str,
    unit: Arc<str>,
    description: Arc<str>,
    series: usize,
    attributes: BTreeMap<String, BTreeSet<String>>,
    last_unix_nano: UnixNano,
}

#[derive(Serialize)]
struct One<'a> {
    name: &'a str,
    service: &'a str,
    #[serde(rename = "type")]
    instrument_type: &'static str,
    unit: &'a str,
    description: &'a str,
    matches: Vec<Match>,
    series: Vec<Series<'a>>,
    exemplars: Vec<Exemplar<'a>>,
}

/// Service and type of an instrument with the requested name.
#[derive(Serialize)]
struct Match {
    service: Arc<str>,
    #[serde(rename = "type")]
    instrument_type: &'static str,
    unit: Arc<str>,
    description: Arc<str>,
    series: usize,
}

#[derive(Serialize)]
struct Series<'a> {
    attributes: Attributes<'a>,
    scope: &'a str,
    resource: Attributes<'a>,
    points: Vec<&'a Reading>,
}

#[derive(Serialize)]
struct Exemplar<'a> {
    time_unix_nano: UnixNano,
    value: f64,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    attributes: Attributes<'a>,
}

fn list(explorer: &Explorer, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
    let generation = explorer.store.generation();
    let search = SeriesSearch {
        service: parameters.text("service").map(str::to_owned),
        text: parameters.search("text"),
        ..SeriesSearch::default()
    };
    let mut instruments: BTreeMap<_, Instrument> = BTreeMap::new();
    for series in explorer.store.series(&search) {
        let key = (
            series.name.clone(),
            series.source.service.clone(),
            series.instrument_type,
        );
        instruments
            .entry(key)
            .or_insert_with(|| Instrument::new(&series))
            .add(&series);
    }
    let instruments = instruments.into_values().take(MAX_INSTRUMENTS).collect();
    json(generation, List { instruments })
}

fn one(explorer: &Explorer, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
    let generation = explorer.store.generation();
    let mut search = SeriesSearch {
        name: parameters.text("name").map(str::to_owned),
        ..SeriesSearch::default()
    };
    let mut matches: BTreeMap<_, Match> = BTreeMap::new();
    for series in explorer.store.series(&search) {
        let key = (series.source.service.clone(), series.instrument_type);
        matches.entry(key).or_insert_with(|| Match::new(&series)).series += 1;
    }
    let wanted = parameters.text("service");
    let found = matches
        .iter()
        .find(|((service, _), _)| wanted.is_none_or(|wanted| wanted == &**service));
    let ((service, instrument_type), of_service) = found.ok_or(Refusal::NotStored("instrument"))?;
    let (unit, description) = (of_service.unit.clone(), of_service.description.clone());
    let (service, instrument_type) = (service.clone(), *instrument_type);
    search.service = Some(service.to_string());
    search.instrument_type = Some(instrument_type);
    search.attributes = parameters.attributes();
    let (from, to) = (parameters.timestamp("from")?, parameters.timestamp("to")?);
    let is_in = |time: u64| from.is_none_or(|from| time >= from) && to.is_none_or(|to| time <= to);

    let readings = explorer.store.readings(&search, MAX_SERIES);
    let decoded: Vec<_> = readings
        .iter()
        .map(|series| DecodedSeries::new(series, is_in))
        .collect();
    let mut exemplars: Vec<_> = decoded
        .iter()
        .flat_map(|series| &series.exemplars)
        .map(Exemplar::new)
        .collect();
    exemplars.sort_by_key(|exemplar| std::cmp::Reverse(exemplar.time_unix_nano));
    exemplars.truncate(MAX_EXEMPLARS);
    let series = decoded.iter().map(|series| Series {
        attributes: Attributes(&series.attributes),
        scope: &series.stored.descriptor.source.scope,
        resource: Attributes(&series.resource),
        points: series
            .stored
            .readings
            .iter()
            .filter(|reading| is_in(reading.time_unix_nano.0))
            .collect(),
    });
    json(
        generation,
        One {
            name: search.name.as_deref().unwrap_or_default(),
            service: &service,
            instrument_type: name(instrument_type),
            unit: &unit,
            description: &description,
            matches: matches.into_values().collect(),
            series: series.collect(),
            exemplars,
        },
    )
}

/// Series with decoded attributes.
struct DecodedSeries<'a> {
    stored: &'a SeriesReadings,
    attributes: Vec<KeyValue>,
    resource: Vec<KeyValue>,
    exemplars: Vec<DecodedExemplar>,
}

struct DecodedExemplar {
    time: u64,
    value: f64,
    trace: Option<TraceId>,
    span: Option<SpanId>,
    attributes: Vec<KeyValue>,
}

impl<'a> DecodedSeries<'a> {
    fn new(series: &'a SeriesReadings, is_in: impl Fn(u64) -> bool) -> Self {
        let exemplars = series.exemplars.iter().filter(|exemplar| is_in(exemplar.time));
        Self {
            stored: series,
            attributes: series.descriptor.attributes(),
            resource: Source::resource(&series.descriptor.source),
            exemplars: exemplars.map(DecodedExemplar::new).collect(),
        }
    }
}

impl DecodedExemplar {
    fn new(exemplar: &StoredExemplar) -> Self {
        let decoded = exemplar.decoded();
        Self {
            time: exemplar.time,
            value: exemplar.value,
            trace: TraceId::from_bytes(&decoded.trace_id),
            span: SpanId::from_bytes(&decoded.span_id),
            attributes: decoded.filtered_attributes,
        }
    }
}

impl<'a> Exemplar<'a> {
    fn new(exemplar: &'a DecodedExemplar) -> Self {
        Self {
            time_unix_nano: UnixNano(exemplar.time),
            value: exemplar.value,
            trace_id: exemplar.trace,
            span_id: exemplar.span,
            attributes: Attributes(&exemplar.attributes),
        }
    }
}

impl Instrument {
    fn new(series: &SeriesDescriptor) -> Self {
        Self {
            name: series.name.clone(),
            service: series.source.service.clone(),
            instrument_type: name(series.instrument_type),
            unit: series.unit.clone(),
            description: series.description.clone(),
            series: 0,
            attributes: BTreeMap::new(),
            last_unix_nano: UnixNano(0),
        }
    }

    fn add(&mut self, series: &SeriesDescriptor) {
        self.series += 1;
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
            instrument_type: name(series.instrument_type),
            unit: series.unit.clone(),
            description: series.description.clone(),
            series: 0,
        }
    }
}

fn name(instrument_type: InstrumentType) -> &'static str {
    match instrument_type {
        InstrumentType::Counter => "counter",
        InstrumentType::UpDownCounter => "updowncounter",
        InstrumentType::Gauge => "gauge",
        InstrumentType::Histogram => "histogram",
        InstrumentType::ExponentialHistogram => "exponential_histogram",
        InstrumentType::Summary => "summary",
    }
}
