//! The metric readers and views of a configuration file.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::metrics::{Aggregation, Instrument, InstrumentKind, Stream, Temporality};
use otlp_recorder::{Destination, ExemplarFilter, Signal};

use super::super::metrics::{HistogramAggregation, Measuring, Views};
use super::super::patterns::{Patterns, matches};
#[cfg(feature = "prometheus")]
use super::super::prometheus::Prometheus;
use super::exporters::exporter;
use super::reader::{Section, Value};

/// Settings of `meter_provider`.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) destination: Option<Destination>,
    #[cfg(feature = "prometheus")]
    pub(super) prometheus: Option<Prometheus>,
    pub(super) measuring: Measuring,
    pub(super) views: Views,
}

/// Reader settings that must be the same for all readers, because the SDK has them per view.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Streams {
    cardinality: Cardinality,
    histograms: HistogramAggregation,
}

const KINDS: [(&str, InstrumentKind); 7] = [
    ("counter", InstrumentKind::Counter),
    ("gauge", InstrumentKind::Gauge),
    ("histogram", InstrumentKind::Histogram),
    ("observable_counter", InstrumentKind::ObservableCounter),
    ("observable_gauge", InstrumentKind::ObservableGauge),
    (
        "observable_up_down_counter",
        InstrumentKind::ObservableUpDownCounter,
    ),
    ("up_down_counter", InstrumentKind::UpDownCounter),
];

const COUNT: std::ops::RangeInclusive<i64> = 1..=10_000_000;

/// Reads `meter_provider`.
pub(super) fn metrics(mut section: Section<'_>) -> Metrics {
    let mut metrics = Metrics::default();
    let mut streams: Option<Streams> = None;
    let mut kinds = Vec::new();
    for item in section.required("readers").iter().flat_map(Value::items) {
        let Some((kind, value)) = item.section().component() else {
            continue;
        };
        if kinds.contains(&kind) {
            value.refuse("only one reader of each kind is supported");
        }
        kinds.push(kind);
        let path = value.clone();
        let own = match kind {
            "periodic" => periodic(value.section(), &mut metrics),
            "pull" => pull(value.section(), &mut metrics),
            _ => {
                value.refuse("is not a supported reader");
                continue;
            }
        };
        match &streams {
            Some(first) if *first != own => {
                path.refuse("readers with different cardinality limits or default histogram aggregations are not supported");
            }
            _ => streams = Some(own),
        }
    }
    if let Some(filter) = section.get("exemplar_filter")
        && let Some(filter) = filter.choice(&[
            ("always_on", ExemplarFilter::AlwaysOn),
            ("always_off", ExemplarFilter::AlwaysOff),
            ("trace_based", ExemplarFilter::TraceBased),
        ])
    {
        metrics.measuring.exemplars = filter;
    }
    section.refuse("meter_configurator/development");
    let views: Vec<View> = section
        .get("views")
        .iter()
        .flat_map(Value::items)
        .filter_map(view)
        .collect();
    metrics.views = all_views(views, streams.unwrap_or_default());
    metrics
}

fn periodic(mut section: Section<'_>, metrics: &mut Metrics) -> Streams {
    let measuring = &mut metrics.measuring;
    measuring.interval = section.delay("interval").unwrap_or(Duration::from_secs(60));
    measuring.timeout = section.timeout("timeout").unwrap_or(Duration::from_secs(30));
    let mut histograms = HistogramAggregation::default();
    if let Some(value) = section.required("exporter") {
        metrics.destination = exporter(value, Signal::Metrics, |section| {
            if let Some(value) = section.get("temporality_preference") {
                measuring.temporality = value
                    .choice(&[
                        ("cumulative", Temporality::Cumulative),
                        ("delta", Temporality::Delta),
                        ("low_memory", Temporality::LowMemory),
                    ])
                    .unwrap_or_default();
            }
            if let Some(value) = section.get("default_histogram_aggregation") {
                histograms = value
                    .choice(&[
                        ("explicit_bucket_histogram", HistogramAggregation::ExplicitBucket),
                        (
                            "base2_exponential_bucket_histogram",
                            HistogramAggregation::Base2Exponential,
                        ),
                    ])
                    .unwrap_or_default();
            }
        });
    }
    section.refuse("max_export_batch_size/development");
    Streams {
        histograms,
        ..streams(section)
    }
}

/// Reads the properties that both kinds of readers have.
fn streams(mut section: Section<'_>) -> Streams {
    section.refuse("producers");
    let limits = section.get("cardinality_limits").map(Value::section);
    Streams {
        cardinality: limits.map(Cardinality::read).unwrap_or_default(),
        ..Streams::default()
    }
}

fn pull(mut section: Section<'_>, metrics: &mut Metrics) -> Streams {
    if let Some(value) = section.required("exporter")
        && let Some((name, value)) = value.section().component()
    {
        match name {
            "prometheus/development" => prometheus(&value, metrics),
            _ => value.refuse("is not a supported exporter"),
        }
    }
    streams(section)
}

#[cfg(not(feature = "prometheus"))]
fn prometheus(value: &Value<'_>, _: &mut Metrics) {
    value.refuse("needs the cargo feature prometheus of otel-service");
}

#[cfg(feature = "prometheus")]
fn prometheus(value: &Value<'_>, metrics: &mut Metrics) {
    let mut section = value.clone().section();
    let mut settings = Prometheus::default();
    if let Some(host) = section.text("host") {
        settings.host = host;
    }
    if let Some(port) = section.count("port", 0..=65_535) {
        settings.port = u16::try_from(port).unwrap_or(settings.port);
    }
    if let Some(enabled) = section.boolean("scope_info_enabled") {
        settings.scope_labels = enabled;
    }
    if let Some(enabled) = section.boolean("target_info_enabled/development") {
        settings.target_info = enabled;
    }
    // The names of these properties in version 1.0 of the schema.
    if let Some(without) = section.boolean("without_scope_info") {
        settings.scope_labels = !without;
    }
    if let Some(without) = section.boolean("without_target_info/development") {
        settings.target_info = !without;
    }
    for name in ["resource_constant_labels", "with_resource_constant_labels"] {
        if let Some(value) = section.get(name) {
            settings.constant_labels = Some(patterns(value));
        }
    }
    if let Some(value) = section.get("translation_strategy") {
        let suffixes = value.choice(&[
            ("underscore_escaping_with_suffixes", true),
            ("underscore_escaping_without_suffixes/development", false),
        ]);
        settings.suffixes = suffixes.unwrap_or(true);
    }
    metrics.prometheus = Some(settings);
}

/// Reads `included` and `excluded`.
pub(super) fn patterns(value: Value<'_>) -> Patterns {
    let mut section = value.section();
    Patterns {
        included: section.get("included").map(|list| list.texts()),
        excluded: section
            .get("excluded")
            .map(|list| list.texts())
            .unwrap_or_default(),
    }
}

/// Maximum number of attribute sets, by the kind of instrument.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Cardinality {
    default: Option<usize>,
    kinds: Vec<(InstrumentKind, usize)>,
}

impl Cardinality {
    fn read(mut section: Section<'_>) -> Self {
        let mut limit = |name: &str| section.count(name, COUNT);
        Self {
            default: limit("default"),
            kinds: KINDS
                .iter()
                .filter_map(|(name, kind)| Some((*kind, limit(name)?)))
                .collect(),
        }
    }

    fn limit(&self, kind: InstrumentKind) -> Option<usize> {
        let own = self.kinds.iter().find(|(of, _)| *of == kind);
        own.map(|(_, limit)| *limit).or(self.default)
    }
}

/// An element of `views`.
#[derive(Debug)]
struct View {
    selector: Selector,
    name: Option<String>,
    description: Option<String>,
    aggregation: Option<Aggregation>,
    cardinality_limit: Option<usize>,
    attribute_keys: Option<Vec<String>>,
}

#[derive(Debug)]
struct Selector {
    name: Option<String>,
    kind: Option<InstrumentKind>,
    unit: Option<String>,
    meter_name: Option<String>,
    meter_version: Option<String>,
    meter_schema_url: Option<String>,
}

impl Selector {
    fn selects(&self, instrument: &Instrument) -> bool {
        let scope = instrument.scope();
        let is = |expected: &Option<String>, found: Option<&str>| {
            expected.as_deref().is_none_or(|expected| Some(expected) == found)
        };
        self.name
            .as_deref()
            .is_none_or(|pattern| matches(pattern, instrument.name()))
            && self.kind.is_none_or(|kind| kind == instrument.kind())
            && is(&self.unit, Some(instrument.unit()))
            && is(&self.meter_name, Some(scope.name()))
            && is(&self.meter_version, scope.version())
            && is(&self.meter_schema_url, scope.schema_url())
    }
}

fn view(value: Value<'_>) -> Option<View> {
    let mut section = value.section();
    let mut selector = section.required("selector")?.section();
    let stream = section.required("stream")?;
    let kind = selector.get("instrument_type");
    let selector = Selector {
        name: selector.text("instrument_name"),
        kind: kind.and_then(|kind| kind.choice(&KINDS)),
        unit: selector.text("unit"),
        meter_name: selector.text("meter_name"),
        meter_version: selector.text("meter_version"),
        meter_schema_url: selector.text("meter_schema_url"),
    };
    let mut properties = stream.clone().section();
    let keys = properties
        .get("attribute_keys")
        .map(|value| (value.clone(), patterns(value)));
    let attribute_keys = keys.and_then(|(value, patterns)| {
        let is_exact = |key: &String| !key.contains(['*', '?']);
        if !patterns.excluded.is_empty() || !patterns.included.iter().flatten().all(is_exact) {
            value.refuse("only included keys without wildcards are supported");
        }
        patterns.included
    });
    let view = View {
        selector,
        name: properties.text("name"),
        description: properties.text("description"),
        aggregation: properties.get("aggregation").and_then(aggregation),
        cardinality_limit: properties.count("aggregation_cardinality_limit", COUNT),
        attribute_keys,
    };
    drop(properties);
    if view.stream(None, None).is_none() {
        stream.refuse("the SDK does not accept this stream");
    }
    Some(view)
}

fn aggregation(value: Value<'_>) -> Option<Aggregation> {
    let (name, value) = value.section().component()?;
    let mut section = value.clone().section();
    let aggregation = match name {
        "default" => return None,
        "drop" => Aggregation::Drop,
        "sum" => Aggregation::Sum,
        "last_value" => Aggregation::LastValue,
        "explicit_bucket_histogram" => {
            let boundaries = section.get("boundaries").map(|list| {
                let items = list.possibly_no_items();
                items.iter().filter_map(Value::number).collect()
            });
            Aggregation::ExplicitBucketHistogram {
                boundaries: boundaries.unwrap_or_else(|| {
                    let default = [
                        0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000,
                    ];
                    default.map(f64::from).to_vec()
                }),
                record_min_max: section.boolean("record_min_max").unwrap_or(true),
            }
        }
        "base2_exponential_bucket_histogram" => {
            let scale = section
                .get("max_scale")
                .map_or(Some(20), |scale| scale.integer(-10..=20));
            let size = section.count("max_size", 2..=65_536);
            Aggregation::Base2ExponentialHistogram {
                max_size: size.and_then(|size| u32::try_from(size).ok()).unwrap_or(160),
                max_scale: scale.and_then(|scale| i8::try_from(scale).ok()).unwrap_or(20),
                record_min_max: section.boolean("record_min_max").unwrap_or(true),
            }
        }
        _ => {
            value.refuse("is not a known aggregation");
            return None;
        }
    };
    Some(aggregation)
}

impl View {
    /// Returns the stream, with the defaults of the reader.
    fn stream(&self, default: Option<Aggregation>, limit: Option<usize>) -> Option<Stream> {
        let mut stream = Stream::builder();
        if let Some(name) = &self.name {
            stream = stream.with_name(name.clone());
        }
        if let Some(description) = &self.description {
            stream = stream.with_description(description.clone());
        }
        if let Some(aggregation) = self.aggregation.clone().or(default) {
            stream = stream.with_aggregation(aggregation);
        }
        if let Some(limit) = self.cardinality_limit.or(limit) {
            stream = stream.with_cardinality_limit(limit);
        }
        if let Some(keys) = &self.attribute_keys {
            stream = stream.with_allowed_attribute_keys(keys.iter().cloned().map(Into::into));
        }
        stream.build().ok()
    }
}

/// Returns the views, and one for the instruments that no view selects, with the defaults of the readers.
fn all_views(views: Vec<View>, streams: Streams) -> Views {
    let views = Arc::new(views);
    let mut all = Views::default();
    for index in 0..views.len() {
        let (views, streams) = (Arc::clone(&views), streams.clone());
        all.add(move |instrument| {
            let view = views
                .get(index)
                .filter(|view| view.selector.selects(instrument))?;
            let limit = streams.cardinality.limit(instrument.kind());
            view.stream(streams.histograms.aggregation(instrument), limit)
        });
    }
    all.add(move |instrument| {
        let aggregation = streams.histograms.aggregation(instrument);
        let limit = streams.cardinality.limit(instrument.kind());
        if aggregation.is_none() && limit.is_none()
            || views.iter().any(|view| view.selector.selects(instrument))
        {
            return None;
        }
        let mut stream = Stream::builder();
        if let Some(aggregation) = aggregation {
            stream = stream.with_aggregation(aggregation);
        }
        if let Some(limit) = limit {
            stream = stream.with_cardinality_limit(limit);
        }
        stream.build().ok()
    });
    all
}
