//! `/metrics` and `/metrics/{name}`: the list of instruments, and the series of an instrument with their
//! readings.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use opentelemetry_proto::tonic::{common::v1::KeyValue, metrics};
use serde::Serialize;

use super::{
    error::PageError,
    explorer::Explorer,
    json::{Attributes, Value},
    parameters::Parameters,
};
use crate::store::{
    Aggregate, Group, Grouping, Heatmap, InstrumentType, Number, Reading, SeriesDescriptor, SeriesSamples,
    SeriesSearch, SpanId, Totals, TraceId, UnixNano,
};

/// Maximum number of values per attribute in the list.
const MAX_VALUES: usize = 20;

/// Maximum number of attributes per instrument in the list.
const MAX_KEYS: usize = 32;

/// Maximum number of instruments in the list.
const MAX_INSTRUMENTS: usize = 1_000;

/// Default number of series of an instrument; the largest are returned.
const DEFAULT_SERIES: usize = 100;

/// Maximum number of exemplars of an instrument; the newest are returned.
const MAX_EXEMPLARS: usize = 500;

#[derive(Serialize)]
pub(super) struct List {
    instruments: Vec<Instrument>,
    /// Number of instruments beyond the maximum.
    left_out: usize,
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
    /// Number of series, or of groups, that match the filters.
    total_series: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregate: Option<Aggregate>,
    series: Vec<Series>,
    exemplars: Vec<Exemplar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heatmap: Option<Heatmap>,
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
    /// Number of series that a group combines.
    #[serde(skip_serializing_if = "Option::is_none")]
    combines: Option<usize>,
    total: Total,
    points: Vec<Reading>,
}

/// Totals of a series.
#[derive(Serialize)]
#[serde(untagged)]
enum Total {
    Value {
        value: Number,
    },
    Observations {
        count: Number,
        sum: Option<f64>,
        mean: Option<f64>,
        min: Option<f64>,
        max: Option<f64>,
    },
}

#[derive(Serialize)]
struct Exemplar {
    time_unix_nano: UnixNano,
    value: Number,
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
    Ok(List {
        left_out: instruments.len().saturating_sub(MAX_INSTRUMENTS),
        instruments: instruments.into_values().take(MAX_INSTRUMENTS).collect(),
    })
}

pub(super) fn instrument(explorer: &Explorer, parameters: &mut Parameters) -> Result<Details, PageError> {
    let name = parameters.text("name")?.unwrap_or_default();
    let wanted = parameters.text("service")?;
    let attributes = parameters.attributes()?;
    let (from, to) = (parameters.timestamp("from")?, parameters.timestamp("to")?);
    let limit = parameters.limit_or(DEFAULT_SERIES)?;
    let keys = parameters.repeated("by")?;
    let aggregate = parameters.parsed("aggregate", "must be `sum`, `avg` or `max`", aggregate)?;
    let heatmap = parameters.parsed("heatmap", "must be `true` or `false`", |text| text.parse().ok())?;
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
    let query = explorer.store.query(&search, window.clone());

    let mut exemplars = Vec::new();
    let aggregate = match (aggregate, keys.is_empty()) {
        (None, true) => None,
        (given, _) => Some(checked(given, chosen.instrument_type)?),
    };
    let (total_series, series) = match aggregate {
        Some(aggregate) => {
            let (total, groups) = explorer
                .store
                .groups(&query, &Grouping { keys, aggregate }, limit);
            let of_type = |group| Series::combined(group, chosen.instrument_type);
            (total, groups.into_iter().map(of_type).collect())
        }
        None => {
            let (total, series) = explorer.store.samples(&query, limit);
            let series = series.into_iter().map(|mut one| {
                exemplars.extend(exemplars_in(&mut one, &window));
                Series::new(one)
            });
            (total, series.collect())
        }
    };
    exemplars.sort_by_key(|exemplar: &Exemplar| Reverse(exemplar.time_unix_nano));
    exemplars.truncate(MAX_EXEMPLARS);
    let is_histogram = is_histogram(chosen.instrument_type);
    let heatmap = (heatmap == Some(true) && is_histogram).then(|| explorer.store.heatmap(&query));
    Ok(Details {
        name,
        service: chosen.service.clone(),
        instrument_type: chosen.instrument_type,
        unit: chosen.unit.clone(),
        description: chosen.description.clone(),
        matches,
        total_series,
        aggregate,
        series,
        exemplars,
        heatmap,
    })
}

fn aggregate(text: &str) -> Option<Aggregate> {
    match text {
        "sum" => Some(Aggregate::Sum),
        "avg" => Some(Aggregate::Average),
        "max" => Some(Aggregate::Max),
        _ => None,
    }
}

/// Returns the aggregate for instruments of a type.
fn checked(given: Option<Aggregate>, instrument_type: InstrumentType) -> Result<Aggregate, PageError> {
    let only_sum = "must be `sum` for histograms, whose observations are merged";
    match (instrument_type, given) {
        (InstrumentType::Summary, _) => {
            let problem = "cannot combine summaries, because their quantiles cannot be merged";
            Err(PageError::parameter("aggregate", problem))
        }
        (InstrumentType::Gauge, None) => Ok(Aggregate::Average),
        (_, None) => Ok(Aggregate::Sum),
        (kind, Some(given)) if is_histogram(kind) && given != Aggregate::Sum => {
            Err(PageError::parameter("aggregate", only_sum))
        }
        (_, Some(given)) => Ok(given),
    }
}

fn is_histogram(instrument_type: InstrumentType) -> bool {
    matches!(
        instrument_type,
        InstrumentType::Histogram | InstrumentType::ExponentialHistogram
    )
}

fn exemplars_in(series: &mut SeriesSamples, window: &RangeInclusive<u64>) -> Vec<Exemplar> {
    let exemplars = series.exemplars.drain(..).filter_map(Exemplar::new);
    exemplars
        .filter(|exemplar| window.contains(&exemplar.time_unix_nano.0))
        .collect()
}

impl Series {
    fn new(series: SeriesSamples) -> Self {
        let SeriesDescriptor {
            source, instrument, ..
        } = &series.descriptor;
        Self {
            attributes: Attributes(series.descriptor.attributes()),
            scope: source.scope.clone(),
            resource: Attributes(source.resource()),
            combines: None,
            total: Total::new(series.totals, instrument.instrument_type),
            points: series.samples.into_iter().map(Reading::from).collect(),
        }
    }

    /// Returns the form of a group, which has neither scope nor resource.
    fn combined(group: Group, instrument_type: InstrumentType) -> Self {
        Self {
            attributes: Attributes(group.attributes),
            scope: "".into(),
            resource: Attributes(Vec::new()),
            combines: Some(group.series),
            total: Total::new(group.totals, instrument_type),
            points: group.samples.into_iter().map(Reading::from).collect(),
        }
    }
}

impl Total {
    fn new(totals: Totals, instrument_type: InstrumentType) -> Self {
        match instrument_type {
            InstrumentType::Counter | InstrumentType::UpDownCounter | InstrumentType::Gauge => {
                Self::Value { value: totals.value }
            }
            InstrumentType::Histogram | InstrumentType::ExponentialHistogram | InstrumentType::Summary => {
                Self::Observations {
                    count: totals.value,
                    sum: Some(totals.sum).filter(|sum| sum.is_finite()),
                    mean: totals.mean(),
                    min: totals.min,
                    max: totals.max,
                }
            }
        }
    }
}

impl Exemplar {
    /// Returns `None` if the exemplar has no value.
    fn new(exemplar: metrics::v1::Exemplar) -> Option<Self> {
        Some(Self {
            time_unix_nano: UnixNano(exemplar.time_unix_nano),
            value: exemplar.value?.into(),
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
