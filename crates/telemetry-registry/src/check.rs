//! Checks telemetry received over OTLP against the registry.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as trace;

use crate::declaration::RequirementLevel;
use crate::finding::{Finding, Problem};
use crate::naming;
use crate::registry::{Registry, Use};
use crate::value::{self, text};

impl Registry {
    /// Returns the ways in which spans, their events and links, and resources deviate from the registry.
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

    /// Returns the ways in which metrics and resources deviate from the registry.
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

    /// Returns the ways in which log records and resources deviate from the registry.
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

const UNDECLARED: &str = "is not declared";
const DEPRECATED: &str = "is deprecated";
const NOT_IMPORTED: &str = "is defined upstream but not imported";

struct Check<'a> {
    registry: &'a Registry,
    findings: BTreeSet<Finding>,
}

/// The attributes of a received item.
struct Attributes<'a> {
    item: &'a str,
    values: &'a [KeyValue],
    /// Whether attributes were dropped or aggregated; missing ones are then not reported.
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

    fn differs(&mut self, item: &str, description: impl Into<String>) {
        self.found(item, Problem::Other(description.into()));
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
        let mut attributes = Attributes {
            item: &item,
            values: &span.attributes,
            incomplete: span.dropped_attributes_count > 0,
        };
        let named = self.registry.spans.iter().filter(|declared| {
            let mut patterns = declared.names.iter();
            patterns.any(|pattern| matches_pattern(span, pattern))
        });
        let kind = span.kind().as_str_name().trim_start_matches("SPAN_KIND_");
        let kind = kind.to_ascii_lowercase();
        // Uses the first declaration with the right kind, or the first of all if there is none.
        if let Some(declared) = named.min_by_key(|declared| declared.kind != kind) {
            if declared.kind != kind {
                let declared = &declared.kind;
                self.differs(&item, format!("the kind is declared as {declared} but is {kind}"));
            }
            self.only(&attributes, &declared.attributes);
        } else {
            self.differs(&item, UNDECLARED);
            attributes.incomplete = true;
            self.names_and_types(&attributes, &[]);
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
            None => self.differs(attributes.item, UNDECLARED),
            Some(true) => self.differs(attributes.item, DEPRECATED),
            Some(false) if registry.imported_events.contains(name) => {}
            Some(false) => self.differs(attributes.item, NOT_IMPORTED),
        }
        self.names_and_types(attributes, &[]);
    }

    fn metric(&mut self, metric: &Metric) {
        let item = format!("metric {}", metric.name);
        let registry = self.registry;
        let Some((declared, attributes)) = registry.metric(&metric.name) else {
            self.differs(&item, UNDECLARED);
            if !naming::is_well_formed(&metric.name) {
                self.differs(&item, "the name is malformed");
            }
            for attribute in points(metric).into_iter().flatten() {
                self.name_and_type(&item, attribute, &[]);
            }
            return;
        };
        if declared.deprecated {
            self.differs(&item, DEPRECATED);
        } else if !registry.declares_metric(&metric.name) {
            self.differs(&item, NOT_IMPORTED);
        }
        let units = [&declared.unit, &metric.unit].map(|unit| format!("{unit:?}"));
        for (property, declared, received) in [
            ("instrument", &*declared.instrument, instrument_of(metric)),
            ("unit", &*units[0], &*units[1]),
        ] {
            if received != declared {
                self.differs(
                    &item,
                    format!("the {property} is declared as {declared} but is {received}"),
                );
            }
        }
        let everywhere = registry.measures.get("*").map_or(&[][..], Vec::as_slice);
        let allowed = [attributes, everywhere].concat();
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
        let sources = &self.registry.sources;
        let Some(source) = text_of(&record.attributes, "code.file.path")
            .filter(|source| sources.iter().any(|ours| source.starts_with(ours.as_str())))
        else {
            let target = text_of(&record.attributes, "code.file.path").unwrap_or_default();
            return self.foreign(&format!("log of {target}"), &record.attributes);
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

    /// Checks attributes that other crates have named against the naming conventions.
    fn foreign(&mut self, item: &str, attributes: &[KeyValue]) {
        for attribute in attributes {
            let name = &attribute.key;
            if self.registry.declares_attribute(name) {
                self.name_and_type(item, attribute, &[]);
            } else {
                self.violations(item, name);
            }
        }
    }

    fn violations(&mut self, item: &str, name: &str) {
        for violation in self.registry.naming.violations(name) {
            self.differs(item, violation);
        }
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
                let repeated = format!("the attribute {} appears more than once", attribute.key);
                self.differs(attributes.item, repeated);
            }
            self.name_and_type(attributes.item, attribute, uses);
        }
        for name in &seen {
            let begins = |other: &&String| {
                other
                    .strip_prefix(name.as_str())
                    .is_some_and(|rest| rest.starts_with('.'))
            };
            if let Some(other) = seen.iter().copied().find(|other| begins(other)) {
                self.differs(
                    attributes.item,
                    format!("the attribute {name} is the namespace of {other}"),
                );
            }
        }
    }

    fn name_and_type(&mut self, item: &str, attribute: &KeyValue, uses: &[Use]) {
        let name = &attribute.key;
        let Some(declared) = self.registry.value_type(name) else {
            self.violations(item, name);
            if let Some(problem) = self.registry.naming.without_namespace(name) {
                self.differs(item, problem);
            }
            return self.differs(item, format!("the attribute {name} is not declared"));
        };
        let upstream = self.registry.upstream.attribute(name);
        if upstream.is_some_and(|upstream| upstream.deprecated) {
            self.differs(item, format!("the attribute {name} is deprecated"));
        }
        let here = uses.iter().find(|used| used.name == *name);
        let declared = here.map_or(declared, |used| used.value_type);
        self.value(item, name, declared, attribute.value.as_ref());
    }

    fn value(&mut self, item: &str, name: &str, declared: &str, value: Option<&AnyValue>) {
        if !value::admits(declared, value) {
            let received = value::type_of(value);
            let problem = format!("the attribute {name} is declared as {declared} but is {received}");
            return self.differs(item, problem);
        }
        if let Some(own) = self.registry.attributes.get(name)
            && let Some(received) = text(value)
            && !own.members.is_empty()
            && !own.members.iter().any(|member| member.value == received)
        {
            self.differs(item, format!("the attribute {name} has no member {received:?}"));
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
        let Some(value) = text_of(&span.attributes, name) else {
            return false;
        };
        expanded.push_str(before);
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    expanded == span.name
}

/// Returns the value of the attribute `name` if it is a string.
fn text_of<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    text(attribute.value.as_ref())
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
    macro_rules! attributes {
        ($data:ident) => {
            $data
                .data_points
                .iter()
                .map(|point| &point.attributes[..])
                .collect()
        };
    }
    match &metric.data {
        Some(Data::Gauge(data)) => attributes!(data),
        Some(Data::Sum(data)) => attributes!(data),
        Some(Data::Histogram(data)) => attributes!(data),
        Some(Data::ExponentialHistogram(data)) => attributes!(data),
        Some(Data::Summary(data)) => attributes!(data),
        None => Vec::new(),
    }
}
