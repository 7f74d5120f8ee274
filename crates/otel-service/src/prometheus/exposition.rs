//! Conversion of metrics to the text formats of Prometheus and OpenMetrics, as "Prometheus and OpenMetrics
//! Compatibility" of the OpenTelemetry specification defines it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, metric::Data,
};
use serde_json::Value as Json;

use super::names::{MetricName, label_name, metric_name};
use super::negotiation::Format;
use crate::config::Prometheus;
use crate::console;

/// Maximum length of the labels of an exemplar, in characters.
const MAX_EXEMPLAR: usize = 128;

/// Returns the metrics in `format`. `warn` receives the reasons for metrics that are left out.
pub(super) fn exposition(
    request: &ExportMetricsServiceRequest,
    settings: &Prometheus,
    format: Format,
    warn: &mut dyn FnMut(String),
) -> String {
    let mut families = Families {
        settings,
        format,
        warn,
        list: Vec::new(),
        indices: HashMap::new(),
        claimed: HashMap::new(),
        constant: Vec::new(),
    };
    for group in &request.resource_metrics {
        families.resource(group);
        for scope in &group.scope_metrics {
            let labels = families.scope_labels(scope);
            for metric in &scope.metrics {
                families.metric(metric, &labels);
            }
        }
    }
    families.text()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

struct Family {
    name: MetricName,
    kind: Kind,
    help: String,
    /// Labels of the points.
    points: HashSet<String>,
    samples: String,
}

struct Families<'a> {
    settings: &'a Prometheus,
    format: Format,
    warn: &'a mut dyn FnMut(String),
    list: Vec<Family>,
    /// Indices by the name of the family.
    indices: HashMap<String, usize>,
    /// Families by the names of their samples, which no other family may have.
    claimed: HashMap<String, usize>,
    /// Labels of all points, with their original keys.
    constant: Labels,
}

/// Labels with the original keys: label, key, value.
type Labels = Vec<(String, String, String)>;

impl Families<'_> {
    fn resource(&mut self, group: &ResourceMetrics) {
        let Some(resource) = group
            .resource
            .as_ref()
            .filter(|resource| !resource.attributes.is_empty())
        else {
            return;
        };
        let all = labels_of(&resource.attributes, "");
        if let Some(patterns) = &self.settings.constant_labels {
            self.constant = all
                .iter()
                .filter(|(_, key, _)| patterns.includes(key))
                .cloned()
                .collect();
        }
        if !self.settings.target_info {
            return;
        }
        let name = MetricName {
            family: "target".to_owned(),
            sample: "target_info".to_owned(),
            unit: None,
        };
        if let Some(family) = self.family(name, Kind::Info, "Target metadata") {
            let labels = joined(all);
            // A point of another resource with the same attributes is the same.
            if family.points.insert(labels.clone()) {
                sample(&mut family.samples, "target_info", &labels, "", "1");
                family.samples.push('\n');
            }
        }
    }

    fn scope_labels(&self, group: &ScopeMetrics) -> Labels {
        let mut labels = self.constant.clone();
        let Some(scope) = group.scope.as_ref().filter(|_| self.settings.scope_labels) else {
            return labels;
        };
        let own = [
            ("otel_scope_name", &scope.name),
            ("otel_scope_version", &scope.version),
            ("otel_scope_schema_url", &group.schema_url),
        ];
        let attributes = labels_of(&scope.attributes, "otel_scope_");
        labels.extend(
            attributes
                .into_iter()
                .filter(|(label, ..)| own.iter().all(|(name, _)| name != label)),
        );
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        labels.extend(own.map(|(name, value)| (name.to_owned(), name.to_owned(), value.clone())));
        labels
    }

    fn metric(&mut self, metric: &Metric, common: &Labels) {
        match &metric.data {
            Some(Data::Gauge(gauge)) => self.numbers(metric, Kind::Gauge, &gauge.data_points, common),
            Some(Data::Sum(sum)) if sum.aggregation_temporality() == AggregationTemporality::Cumulative => {
                let kind = if sum.is_monotonic {
                    Kind::Counter
                } else {
                    Kind::Gauge
                };
                self.numbers(metric, kind, &sum.data_points, common);
            }
            Some(Data::Histogram(histogram))
                if histogram.aggregation_temporality() == AggregationTemporality::Cumulative =>
            {
                self.histograms(metric, &histogram.data_points, common);
            }
            Some(_) => (self.warn)(format!(
                "the metric {} is not exposed: the formats of Prometheus have neither exponential histograms nor deltas",
                metric.name
            )),
            None => {}
        }
    }

    fn numbers(&mut self, metric: &Metric, kind: Kind, points: &[NumberDataPoint], common: &Labels) {
        let is_counter = kind == Kind::Counter;
        let has_exemplars = is_counter && self.format.is_open_metrics();
        // As in the receiver of Prometheus and the exporter of the collector.
        let is_ratio = metric.unit == "1" && matches!(metric.data, Some(Data::Gauge(_)));
        let unit = if is_ratio { "ratio" } else { &metric.unit };
        let name = metric_name(&metric.name, unit, is_counter, self.settings.suffixes);
        let has_total = name.sample.ends_with("_total");
        let Some(family) = self.family(name, kind, &metric.description) else {
            return;
        };
        let mut duplicates = 0;
        for point in points {
            let labels = point_labels(&point.attributes, common, false);
            if !family.points.insert(labels.clone()) {
                duplicates += 1;
                continue;
            }
            let value = match point.value {
                Some(Number::AsInt(number)) => number.to_string(),
                Some(Number::AsDouble(number)) => decimal(number),
                None => continue,
            };
            sample(&mut family.samples, &family.name.sample, &labels, "", &value);
            let latest = point
                .exemplars
                .iter()
                .max_by_key(|exemplar| exemplar.time_unix_nano);
            if let Some(exemplar) = latest.filter(|_| has_exemplars && has_total) {
                write_exemplar(&mut family.samples, exemplar);
            }
            family.samples.push('\n');
        }
        self.report_duplicates(metric, duplicates);
    }

    fn histograms(&mut self, metric: &Metric, points: &[HistogramDataPoint], common: &Labels) {
        let has_exemplars = self.format.is_open_metrics();
        let name = metric_name(&metric.name, &metric.unit, false, self.settings.suffixes);
        let Some(family) = self.family(name, Kind::Histogram, &metric.description) else {
            return;
        };
        let mut duplicates = 0;
        for point in points {
            let labels = point_labels(&point.attributes, common, true);
            if family.points.insert(labels.clone()) {
                let exemplars = if has_exemplars { &point.exemplars[..] } else { &[] };
                write_histogram(
                    &mut family.samples,
                    &family.name.sample,
                    &labels,
                    point,
                    exemplars,
                );
            } else {
                duplicates += 1;
            }
        }
        self.report_duplicates(metric, duplicates);
    }

    fn report_duplicates(&mut self, metric: &Metric, duplicates: usize) {
        if duplicates > 0 {
            (self.warn)(format!(
                "points of the metric {} are not exposed: after the translation they have the labels of other points",
                metric.name
            ));
        }
    }

    /// Returns the family, or `None` if its names are those of another one.
    fn family(&mut self, name: MetricName, kind: Kind, help: &str) -> Option<&mut Family> {
        if let Some(&index) = self.indices.get(&name.family)
            && self.list[index].kind == kind
            && self.list[index].name.sample == name.sample
        {
            return self.list.get_mut(index);
        }
        let base = &name.family;
        let names = match kind {
            Kind::Histogram => ["", "_bucket", "_count", "_sum"]
                .map(|suffix| format!("{base}{suffix}"))
                .to_vec(),
            _ => vec![base.clone(), name.sample.clone()],
        };
        if names.iter().any(|name| self.claimed.contains_key(name)) {
            (self.warn)(format!(
                "the metric {} is not exposed: another one with another type has its name",
                name.sample
            ));
            return None;
        }
        let index = self.list.len();
        self.claimed.extend(names.into_iter().map(|name| (name, index)));
        self.indices.insert(name.family.clone(), index);
        self.list.push(Family {
            name,
            kind,
            help: help.to_owned(),
            points: HashSet::new(),
            samples: String::new(),
        });
        self.list.last_mut()
    }

    fn text(self) -> String {
        let mut text = String::new();
        let is_open_metrics = self.format.is_open_metrics();
        for family in self.list.iter().filter(|family| !family.samples.is_empty()) {
            let name = if is_open_metrics {
                &family.name.family
            } else {
                &family.name.sample
            };
            let kind = match family.kind {
                // Samples of counters must end with _total in OpenMetrics.
                Kind::Counter if is_open_metrics && !family.name.sample.ends_with("_total") => "unknown",
                Kind::Counter => "counter",
                Kind::Histogram => "histogram",
                Kind::Info if is_open_metrics => "info",
                Kind::Gauge | Kind::Info => "gauge",
            };
            let _ = writeln!(text, "# TYPE {name} {kind}");
            if let Some(unit) = family.name.unit.as_ref().filter(|_| is_open_metrics) {
                let _ = writeln!(text, "# UNIT {name} {unit}");
            }
            if !family.help.is_empty() {
                let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
                let help = if is_open_metrics {
                    help.replace('"', "\\\"")
                } else {
                    help
                };
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            text.push_str(&family.samples);
        }
        if is_open_metrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

fn write_histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    point: &HistogramDataPoint,
    exemplars: &[Exemplar],
) {
    let bucket = format!("{name}_bucket");
    let mut count = 0;
    let mut below = f64::NEG_INFINITY;
    // Without buckets there is only that without an upper bound.
    let finite = point.explicit_bounds.iter().zip(&point.bucket_counts);
    let finite = finite.map(|(bound, count)| (*bound, *count)).collect::<Vec<_>>();
    let rest = point
        .count
        .saturating_sub(finite.iter().map(|(_, count)| count).sum());
    for (bound, more) in finite.into_iter().chain([(f64::INFINITY, rest)]) {
        count += more;
        sample(
            text,
            &bucket,
            labels,
            &format!("le=\"{}\"", decimal(bound)),
            &count.to_string(),
        );
        let within = exemplars.iter().filter(|exemplar| {
            let value = exemplar_value(exemplar);
            value > below && value <= bound
        });
        if let Some(exemplar) = within.max_by_key(|exemplar| exemplar.time_unix_nano) {
            write_exemplar(text, exemplar);
        }
        text.push('\n');
        below = bound;
    }
    if let Some(sum) = point.sum {
        sample(text, &format!("{name}_sum"), labels, "", &decimal(sum));
        text.push('\n');
    }
    sample(
        text,
        &format!("{name}_count"),
        labels,
        "",
        &point.count.to_string(),
    );
    text.push('\n');
}

/// Writes a sample without its line feed.
fn sample(text: &mut String, name: &str, labels: &str, more: &str, value: &str) {
    let separator = if labels.is_empty() || more.is_empty() {
        ""
    } else {
        ","
    };
    let _ = match (labels, more) {
        ("", "") => write!(text, "{name} {value}"),
        _ => write!(text, "{name}{{{labels}{separator}{more}}} {value}"),
    };
}

fn write_exemplar(text: &mut String, exemplar: &Exemplar) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ids = [
        ("trace_id", hex(&exemplar.trace_id)),
        ("span_id", hex(&exemplar.span_id)),
    ];
    let ids = ids.into_iter().filter(|(_, id)| !id.is_empty());
    let mut labels: Labels = ids
        .map(|(name, id)| (name.to_owned(), name.to_owned(), id))
        .collect();
    let length = |labels: &Labels| -> usize {
        labels
            .iter()
            .map(|(label, _, value)| label.chars().count() + value.chars().count())
            .sum()
    };
    for label in labels_of(&exemplar.filtered_attributes, "") {
        if labels.iter().all(|(known, ..)| *known != label.0) {
            labels.push(label);
            if length(&labels) > MAX_EXEMPLAR {
                labels.pop();
            }
        }
    }
    let seconds = exemplar.time_unix_nano as f64 / 1e9;
    let (labels, value) = (joined(labels), decimal(exemplar_value(exemplar)));
    let _ = write!(text, " # {{{labels}}} {value} {seconds:.3}");
}

fn exemplar_value(exemplar: &Exemplar) -> f64 {
    match exemplar.value {
        Some(ExemplarValue::AsDouble(value)) => value,
        Some(ExemplarValue::AsInt(value)) => value as f64,
        None => f64::NAN,
    }
}

fn decimal(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{number:?}")
}

/// Returns the labels of a point. Histograms have the label `le`, so their attribute `le` is renamed.
fn point_labels(attributes: &[KeyValue], common: &Labels, is_histogram: bool) -> String {
    let mut labels = labels_of(attributes, "");
    for (label, ..) in labels
        .iter_mut()
        .filter(|(label, ..)| is_histogram && label == "le")
    {
        *label = "exported_le".to_owned();
    }
    labels.extend(common.iter().cloned());
    joined(labels)
}

fn labels_of(attributes: &[KeyValue], prefix: &str) -> Labels {
    let label = |attribute: &KeyValue| {
        let value = match console::value(attribute.value.as_ref()) {
            Json::String(text) => text,
            Json::Null => String::new(),
            other => other.to_string(),
        };
        let key = format!("{prefix}{}", attribute.key);
        (label_name(&key), key, value)
    };
    attributes.iter().map(label).collect()
}

/// Returns labels in the text format. Values of labels with the same name are joined in the order of their keys.
fn joined(mut labels: Labels) -> String {
    labels.sort_by(|one, other| one.1.cmp(&other.1));
    let mut merged: BTreeMap<String, String> = BTreeMap::new();
    for (label, _, value) in labels {
        let known = merged.entry(label);
        known
            .and_modify(|known| *known = format!("{known};{value}"))
            .or_insert(value);
    }
    let escaped = |value: &str| {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let pairs: Vec<String> = merged
        .iter()
        .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
    use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogram, Gauge, Histogram, Sum};
    use opentelemetry_proto::tonic::resource::v1::Resource;

    use super::*;

    fn attribute(key: &str, value: impl Into<opentelemetry::Value>) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue::from(value.into())),
            ..KeyValue::default()
        }
    }

    fn number(value: i64, attributes: Vec<KeyValue>) -> NumberDataPoint {
        NumberDataPoint {
            value: Some(Number::AsInt(value)),
            attributes,
            ..NumberDataPoint::default()
        }
    }

    fn metric(name: &str, unit: &str, data: Data) -> Metric {
        Metric {
            name: name.to_owned(),
            unit: unit.to_owned(),
            description: format!("The \\ {name} of \"it\"."),
            data: Some(data),
            ..Metric::default()
        }
    }

    fn gauge(points: Vec<NumberDataPoint>) -> Data {
        Data::Gauge(Gauge { data_points: points })
    }

    fn counter(points: Vec<NumberDataPoint>) -> Data {
        Data::Sum(Sum {
            data_points: points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        })
    }

    fn exemplar(value: f64, seconds: u64) -> Exemplar {
        Exemplar {
            time_unix_nano: seconds * 1_000_000_000,
            trace_id: vec![0xab; 16],
            span_id: vec![0xcd; 8],
            value: Some(ExemplarValue::AsDouble(value)),
            ..Exemplar::default()
        }
    }

    fn scope(name: &str, metrics: Vec<Metric>) -> ScopeMetrics {
        ScopeMetrics {
            scope: Some(InstrumentationScope {
                name: name.to_owned(),
                version: "1.0".to_owned(),
                ..InstrumentationScope::default()
            }),
            metrics,
            ..ScopeMetrics::default()
        }
    }

    fn request(scopes: Vec<ScopeMetrics>) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource {
                    attributes: vec![attribute("service.name", "shop"), attribute("process.pid", 7)],
                    ..Resource::default()
                }),
                scope_metrics: scopes,
                ..ResourceMetrics::default()
            }],
        }
    }

    /// Returns the exposition and the warnings.
    fn exposed(scopes: Vec<ScopeMetrics>, settings: &Prometheus, format: Format) -> (String, Vec<String>) {
        let mut warnings = Vec::new();
        let text = exposition(&request(scopes), settings, format, &mut |warning| {
            warnings.push(warning);
        });
        (text, warnings)
    }

    /// Settings without the labels of the scope and the resource.
    fn bare() -> Prometheus {
        Prometheus {
            scope_labels: false,
            target_info: false,
            ..Prometheus::default()
        }
    }

    fn sample_metrics() -> Vec<ScopeMetrics> {
        let mut counted = number(3, vec![attribute("http.route", "/a\"b\\c\nd")]);
        counted.exemplars = vec![exemplar(1.0, 5), exemplar(2.0, 6)];
        let durations = HistogramDataPoint {
            count: 6,
            sum: Some(12.5),
            explicit_bounds: vec![0.5, 1.0],
            bucket_counts: vec![1, 2, 3],
            exemplars: vec![exemplar(0.5, 7), exemplar(7.0, 8)],
            ..HistogramDataPoint::default()
        };
        let histogram = Data::Histogram(Histogram {
            data_points: vec![durations],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        });
        vec![scope(
            "lib",
            vec![
                metric("orders", "{order}", counter(vec![counted])),
                metric("wait.time", "s", histogram),
                metric("load", "1", gauge(vec![number(-1, Vec::new())])),
            ],
        )]
    }

    #[test]
    fn open_metrics_has_units_and_exemplars() {
        let (text, warnings) = exposed(sample_metrics(), &Prometheus::default(), Format::OpenMetrics);
        let ids = format!("trace_id=\"{}\"", "ab".repeat(16));
        let ids = format!("span_id=\"{}\",{ids}", "cd".repeat(8));
        let scope = "otel_scope_name=\"lib\",otel_scope_version=\"1.0\"";
        let expected = format!(
            r#"# TYPE target info
# HELP target Target metadata
target_info{{process_pid="7",service_name="shop"}} 1
# TYPE orders counter
# HELP orders The \\ orders of \"it\".
orders_total{{http_route="/a\"b\\c\nd",{scope}}} 3 # {{{ids}}} 2.0 6.000
# TYPE wait_time_seconds histogram
# UNIT wait_time_seconds seconds
# HELP wait_time_seconds The \\ wait.time of \"it\".
wait_time_seconds_bucket{{{scope},le="0.5"}} 1 # {{{ids}}} 0.5 7.000
wait_time_seconds_bucket{{{scope},le="1.0"}} 3
wait_time_seconds_bucket{{{scope},le="+Inf"}} 6 # {{{ids}}} 7.0 8.000
wait_time_seconds_sum{{{scope}}} 12.5
wait_time_seconds_count{{{scope}}} 6
# TYPE load_ratio gauge
# UNIT load_ratio ratio
# HELP load_ratio The \\ load of \"it\".
load_ratio{{{scope}}} -1
# EOF
"#
        );
        assert_eq!(text, expected);
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn the_text_format_has_no_exemplars() {
        let (text, _) = exposed(sample_metrics(), &Prometheus::default(), Format::Text);
        assert!(text.starts_with("# TYPE target_info gauge\n"), "{text}");
        assert!(
            text.contains("# TYPE orders_total counter\n# HELP orders_total The \\\\ orders of \"it\".\n"),
            "{text}"
        );
        for absent in ["trace_id", "# UNIT", "# EOF"] {
            assert!(!text.contains(absent), "{absent}: {text}");
        }
    }

    #[test]
    fn an_up_down_counter_is_a_gauge() {
        let Data::Sum(sum) = counter(vec![number(-3, Vec::new())]) else {
            panic!("a counter is a sum");
        };
        let open = Data::Sum(Sum {
            is_monotonic: false,
            ..sum
        });
        let (text, warnings) = exposed(
            vec![scope("lib", vec![metric("open", "", open)])],
            &bare(),
            Format::Text,
        );
        assert!(
            text.starts_with("# TYPE open gauge\n") && text.ends_with("\nopen -3\n"),
            "{text}"
        );
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn labels_with_the_same_name_are_joined_in_the_order_of_their_keys() {
        let attributes = vec![
            attribute("a_b", "second"),
            attribute("a.b", "first"),
            attribute("otel.scope.name", "mine"),
            attribute("flag", true),
            attribute("list", opentelemetry::Value::Array(vec![1.5, 2.0].into())),
        ];
        let scopes = vec![scope(
            "lib",
            vec![metric("x", "", gauge(vec![number(1, attributes)]))],
        )];
        let (text, _) = exposed(scopes, &Prometheus::default(), Format::Text);
        let line = text.lines().last().unwrap();
        assert_eq!(
            line,
            "x{a_b=\"first;second\",flag=\"true\",list=\"[1.5,2.0]\",otel_scope_name=\"mine;lib\",\
             otel_scope_version=\"1.0\"} 1"
        );
    }

    #[test]
    fn attributes_of_the_scope_are_labels() {
        let mut group = scope("lib", vec![metric("x", "", gauge(vec![number(1, Vec::new())]))]);
        let attributes = vec![
            attribute("edition.name", "red"),
            attribute("name", "not the name"),
        ];
        group.scope.as_mut().unwrap().attributes = attributes;
        group.schema_url = "https://example.com/schema".to_owned();
        let (text, _) = exposed(vec![group], &Prometheus::default(), Format::Text);
        let line = text.lines().last().unwrap();
        assert_eq!(
            line,
            "x{otel_scope_edition_name=\"red\",otel_scope_name=\"lib\",\
             otel_scope_schema_url=\"https://example.com/schema\",otel_scope_version=\"1.0\"} 1"
        );
    }

    #[test]
    fn the_bound_of_a_bucket_has_its_label_alone() {
        let point = HistogramDataPoint {
            count: 2,
            attributes: vec![attribute("le", "mine")],
            ..HistogramDataPoint::default()
        };
        let histogram = Data::Histogram(Histogram {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        });
        let (text, _) = exposed(
            vec![scope("lib", vec![metric("x", "", histogram)])],
            &bare(),
            Format::Text,
        );
        assert!(
            text.ends_with("x_bucket{exported_le=\"mine\",le=\"+Inf\"} 2\nx_count{exported_le=\"mine\"} 2\n"),
            "{text}"
        );
    }

    #[test]
    fn a_name_has_one_type_and_one_block() {
        let one = || gauge(vec![number(1, Vec::new())]);
        let scopes = vec![
            scope(
                "one",
                vec![
                    metric("x", "", one()),
                    metric("y.total", "", counter(vec![number(4, Vec::new())])),
                ],
            ),
            scope(
                "two",
                vec![
                    metric("x", "", counter(vec![number(2, Vec::new())])),
                    metric("y", "", one()),
                    metric("x", "", one()),
                    metric("y_total", "", one()),
                ],
            ),
        ];
        let (text, warnings) = exposed(scopes.clone(), &Prometheus::default(), Format::OpenMetrics);
        for name in ["x", "y"] {
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{text}");
        }
        assert!(
            text.contains(
                "x{otel_scope_name=\"one\",otel_scope_version=\"1.0\"} 1\nx{otel_scope_name=\"two\""
            ),
            "{text}"
        );
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(
            warnings[0].contains("metric x_total is not exposed"),
            "{warnings:?}"
        );

        // Without the labels of the scope, the points of both scopes are the same.
        let (text, warnings) = exposed(scopes, &bare(), Format::Text);
        assert_eq!(text.matches("\nx 1\n").count(), 1, "{text}");
        assert!(
            warnings
                .iter()
                .any(|warning| warning.contains("labels of other points")),
            "{warnings:?}"
        );
    }

    #[test]
    fn metrics_that_the_formats_cannot_express_are_left_out_with_a_warning() {
        let exponential = Data::ExponentialHistogram(ExponentialHistogram::default());
        let delta = Data::Sum(Sum {
            data_points: vec![number(1, Vec::new())],
            aggregation_temporality: AggregationTemporality::Delta.into(),
            is_monotonic: true,
        });
        let metrics = vec![metric("e", "", exponential), metric("d", "", delta)];
        let (text, warnings) = exposed(vec![scope("lib", metrics)], &bare(), Format::OpenMetrics);
        assert_eq!(text, "# EOF\n");
        assert!(warnings[0].contains("metric e is not exposed"), "{warnings:?}");
        assert!(warnings[1].contains("metric d is not exposed"), "{warnings:?}");
    }

    #[test]
    fn resource_attributes_can_be_labels() {
        let settings = Prometheus {
            constant_labels: Some(crate::config::Patterns {
                included: Some(vec!["service.*".to_owned()]),
                excluded: Vec::new(),
            }),
            suffixes: false,
            ..bare()
        };
        let scopes = vec![scope(
            "lib",
            vec![metric("io", "By", counter(vec![number(1, Vec::new())]))],
        )];
        let (text, _) = exposed(scopes.clone(), &settings, Format::Text);
        assert!(
            text.ends_with(
                "# TYPE io counter\n# HELP io The \\\\ io of \"it\".\nio{service_name=\"shop\"} 1\n"
            ),
            "{text}"
        );
        let (text, _) = exposed(scopes, &settings, Format::OpenMetrics);
        assert!(text.contains("# TYPE io unknown\n"), "{text}");
    }

    #[test]
    fn numbers_have_the_spelling_of_the_formats() {
        for (number, expected) in [
            (1.0, "1.0"),
            (1e300, "1e300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(decimal(number), expected);
        }
    }
}
