//! Checks telemetry received over OTLP against the registry.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as trace, span::SpanKind as OtlpKind};

use crate::declaration::RequirementLevel;
use crate::finding::{Finding, Problem};
use crate::registry::{Registry, Use};
use crate::value::{ValueType, text};

impl Registry {
    /// Returns how the spans, their events and resources deviate from the registry.
    pub fn check_traces(&self, request: &ExportTraceServiceRequest) -> BTreeSet<Finding> {
        let mut check = Check::new(self);
        for group in &request.resource_spans {
            check.resource(group.resource.as_ref());
            for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                check.span(span);
            }
        }
        check.findings
    }

    /// Returns how the metrics and resources deviate from the registry.
    pub fn check_metrics(&self, request: &ExportMetricsServiceRequest) -> BTreeSet<Finding> {
        let mut check = Check::new(self);
        for group in &request.resource_metrics {
            check.resource(group.resource.as_ref());
            for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                check.metric(metric);
            }
        }
        check.findings
    }

    /// Returns how the log records and resources deviate from the registry.
    pub fn check_logs(&self, request: &ExportLogsServiceRequest) -> BTreeSet<Finding> {
        let mut check = Check::new(self);
        for group in &request.resource_logs {
            check.resource(group.resource.as_ref());
            for record in group.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                check.log(record);
            }
        }
        check.findings
    }
}

struct Check<'a> {
    registry: &'a Registry,
    findings: BTreeSet<Finding>,
}

/// The attributes of a received item.
struct Attributes<'a> {
    item: &'a str,
    values: &'a [KeyValue],
    /// Whether attributes were dropped, so that missing ones are not reported.
    incomplete: bool,
}

impl<'a> Check<'a> {
    fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            findings: BTreeSet::new(),
        }
    }

    fn found(&mut self, item: &str, problem: Problem) {
        self.findings.insert(Finding {
            item: item.to_owned(),
            problem,
        });
    }

    fn resource(&mut self, resource: Option<&Resource>) {
        let values = resource.map_or(&[][..], |resource| &resource.attributes);
        let attributes = Attributes {
            item: "resource",
            values,
            incomplete: false,
        };
        self.names_and_types(&attributes, &self.registry.resource);
        self.required(&attributes, &self.registry.resource);
    }

    fn span(&mut self, span: &trace::Span) {
        let item = format!("span {}", span.name);
        let named: Vec<_> = self
            .registry
            .spans
            .iter()
            .filter(|declared| {
                declared
                    .names
                    .iter()
                    .any(|pattern| matches_pattern(span, pattern))
            })
            .collect();
        let kind = kind(span);
        match named
            .iter()
            .find(|declared| declared.kind.as_str() == kind)
            .or(named.first())
        {
            Some(declared) => {
                if declared.kind.as_str() != kind {
                    let problem = Problem::Kind {
                        declared: declared.kind.as_str().to_owned(),
                        received: kind.to_owned(),
                    };
                    self.found(&item, problem);
                }
                let attributes = Attributes {
                    item: &item,
                    values: &span.attributes,
                    incomplete: span.dropped_attributes_count > 0,
                };
                self.only(&attributes, &declared.attributes);
            }
            None => {
                self.found(&item, Problem::Undeclared);
                let attributes = Attributes {
                    item: &item,
                    values: &span.attributes,
                    incomplete: true,
                };
                self.names_and_types(&attributes, &[]);
            }
        }
        for event in &span.events {
            let attributes = Attributes {
                item: &format!("event {} of span {}", event.name, span.name),
                values: &event.attributes,
                incomplete: event.dropped_attributes_count > 0,
            };
            self.event(&event.name, &attributes);
        }
        for attribute in span.links.iter().flat_map(|link| &link.attributes) {
            self.name_and_type(&format!("link of span {}", span.name), attribute, &[]);
        }
    }

    fn event(&mut self, name: &str, attributes: &Attributes<'_>) {
        let registry = self.registry;
        if let Some(own) = registry.events.get(name) {
            return self.only(attributes, &own.attributes);
        }
        match registry.upstream.events.get(name) {
            None => self.found(attributes.item, Problem::Undeclared),
            Some(true) => self.found(attributes.item, Problem::Deprecated),
            Some(false) if registry.imported_events.contains(name) => {}
            Some(false) => self.found(attributes.item, Problem::NotImported),
        }
        self.names_and_types(attributes, &[]);
    }

    fn metric(&mut self, metric: &Metric) {
        let item = format!("metric {}", metric.name);
        let registry = self.registry;
        let declared = if let Some(own) = registry.metrics.get(&metric.name) {
            Some((own.instrument.as_str(), own.unit.as_str(), Some(&own.attributes)))
        } else if let Some(upstream) = registry.upstream.metrics.get(&metric.name) {
            if upstream.deprecated {
                self.found(&item, Problem::Deprecated);
            } else if !registry.imported_metrics.contains(&metric.name) {
                self.found(&item, Problem::NotImported);
            }
            let attributes = registry.measures.get(&metric.name);
            Some((upstream.instrument.as_str(), upstream.unit.as_str(), attributes))
        } else {
            None
        };
        let Some((instrument, unit, attributes)) = declared else {
            self.found(&item, Problem::Undeclared);
            for attribute in points(metric).into_iter().flatten() {
                self.name_and_type(&item, attribute, &[]);
            }
            return;
        };
        let received = instrument_of(metric);
        if received != instrument {
            let problem = Problem::Instrument {
                declared: instrument.to_owned(),
                received: received.to_owned(),
            };
            self.found(&item, problem);
        }
        if metric.unit != unit {
            let problem = Problem::Unit {
                declared: unit.to_owned(),
                received: metric.unit.clone(),
            };
            self.found(&item, problem);
        }
        let everywhere = registry.measures.get("*").map_or(&[][..], Vec::as_slice);
        let allowed: Vec<Use> = attributes
            .into_iter()
            .flatten()
            .chain(everywhere)
            .cloned()
            .collect();
        for values in points(metric) {
            // The overflow data point aggregates many attribute sets and has none of their attributes.
            let overflow = values
                .iter()
                .any(|attribute| attribute.key == "otel.metric.overflow");
            self.only(
                &Attributes {
                    item: &item,
                    values,
                    incomplete: overflow,
                },
                &allowed,
            );
        }
    }

    fn log(&mut self, record: &LogRecord) {
        let source = record
            .attributes
            .iter()
            .find(|attribute| attribute.key == "code.file.path")
            .and_then(|attribute| text(attribute.value.as_ref()));
        let Some(source) = source.filter(|source| {
            self.registry
                .sources
                .iter()
                .any(|ours| source.starts_with(ours.as_str()))
        }) else {
            return;
        };
        let attributes = Attributes {
            item: &format!("log of {source}"),
            values: &record.attributes,
            incomplete: record.dropped_attributes_count > 0,
        };
        if !record.event_name.is_empty() {
            return self.event(&record.event_name, &attributes);
        }
        let allowed = self.registry.logs.iter().flat_map(|logs| &logs.attributes);
        let allowed: Vec<Use> = allowed.cloned().collect();
        self.only(&attributes, &allowed);
    }

    /// Checks that the item has the allowed attributes and no others.
    fn only(&mut self, attributes: &Attributes<'_>, allowed: &[Use]) {
        self.names_and_types(attributes, allowed);
        self.required(attributes, allowed);
        for attribute in attributes.values {
            let known = self.registry.value_type(&attribute.key).is_some();
            if known && !allowed.iter().any(|used| covers(used, &attribute.key)) {
                self.found(attributes.item, Problem::NotAllowed(attribute.key.clone()));
            }
        }
    }

    fn required(&mut self, attributes: &Attributes<'_>, allowed: &[Use]) {
        for used in allowed {
            let missing = used.requirement_level == RequirementLevel::Required
                && !attributes
                    .values
                    .iter()
                    .any(|attribute| attribute.key == used.name);
            if missing && !attributes.incomplete {
                self.found(attributes.item, Problem::Missing(used.name.clone()));
            }
        }
    }

    fn names_and_types(&mut self, attributes: &Attributes<'_>, uses: &[Use]) {
        let mut seen = BTreeSet::new();
        for attribute in attributes.values {
            if !seen.insert(&attribute.key) {
                self.found(attributes.item, Problem::Repeated(attribute.key.clone()));
            }
            self.name_and_type(attributes.item, attribute, uses);
        }
    }

    fn name_and_type(&mut self, item: &str, attribute: &KeyValue, uses: &[Use]) {
        let name = &attribute.key;
        let Some(declared) = self.registry.value_type(name) else {
            return self.found(item, Problem::UndeclaredAttribute(name.clone()));
        };
        if self
            .registry
            .upstream
            .attribute(name)
            .is_some_and(|upstream| upstream.deprecated)
        {
            self.found(item, Problem::DeprecatedAttribute(name.clone()));
        }
        let here = uses.iter().find(|used| used.name == *name);
        let declared = here.map_or(declared, |used| used.value_type);
        self.value(item, name, declared, attribute.value.as_ref());
    }

    fn value(&mut self, item: &str, name: &str, declared: ValueType, value: Option<&AnyValue>) {
        if !declared.admits(value) {
            let problem = Problem::Type {
                attribute: name.to_owned(),
                declared,
                received: ValueType::of(value),
            };
            return self.found(item, problem);
        }
        let members = self
            .registry
            .attributes
            .get(name)
            .map_or(&[][..], |own| &own.members);
        if let Some(received) = text(value)
            && !members.is_empty()
            && !members.iter().any(|member| member.value == received)
        {
            let problem = Problem::Value {
                attribute: name.to_owned(),
                received: received.to_owned(),
            };
            self.found(item, problem);
        }
    }
}

/// Whether `used` covers an attribute of this name, directly or as a template.
fn covers(used: &Use, name: &str) -> bool {
    name == used.name
        || name
            .strip_prefix(&used.name)
            .is_some_and(|rest| rest.starts_with('.'))
}

/// Whether the name of the span matches a pattern, in which `{attribute}` stands for the value of that
/// attribute.
fn matches_pattern(span: &trace::Span, pattern: &str) -> bool {
    let mut expanded = String::new();
    let mut rest = pattern;
    while let Some((before, (name, after))) = rest
        .split_once('{')
        .and_then(|(before, inside)| Some((before, inside.split_once('}')?)))
    {
        let attribute = span.attributes.iter().find(|attribute| attribute.key == name);
        let Some(value) = attribute.and_then(|attribute| text(attribute.value.as_ref())) else {
            return false;
        };
        expanded.push_str(before);
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    expanded == span.name
}

fn kind(span: &trace::Span) -> &'static str {
    match span.kind() {
        OtlpKind::Internal => "internal",
        OtlpKind::Server => "server",
        OtlpKind::Client => "client",
        OtlpKind::Producer => "producer",
        OtlpKind::Consumer => "consumer",
        OtlpKind::Unspecified => "unspecified",
    }
}

fn instrument_of(metric: &Metric) -> &'static str {
    match &metric.data {
        Some(Data::Gauge(_)) => "gauge",
        Some(Data::Sum(sum)) if sum.is_monotonic => "counter",
        Some(Data::Sum(_)) => "updowncounter",
        Some(Data::Histogram(_) | Data::ExponentialHistogram(_)) => "histogram",
        Some(Data::Summary(_)) => "summary",
        None => "nothing",
    }
}

/// Returns the attributes of each data point.
fn points(metric: &Metric) -> Vec<&[KeyValue]> {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge
            .data_points
            .iter()
            .map(|point| &point.attributes[..])
            .collect(),
        Some(Data::Sum(sum)) => sum
            .data_points
            .iter()
            .map(|point| &point.attributes[..])
            .collect(),
        Some(Data::Histogram(histogram)) => histogram
            .data_points
            .iter()
            .map(|point| &point.attributes[..])
            .collect(),
        Some(Data::ExponentialHistogram(histogram)) => histogram
            .data_points
            .iter()
            .map(|point| &point.attributes[..])
            .collect(),
        Some(Data::Summary(summary)) => summary
            .data_points
            .iter()
            .map(|point| &point.attributes[..])
            .collect(),
        None => Vec::new(),
    }
}
