//! `docs/telemetry.md`: what the service tells of itself, for whoever reads it in a dashboard.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::declaration::RequirementLevel;
use crate::registry::{Registry, Span, Use};

const CONVENTIONS: &str = "https://opentelemetry.io/docs/specs/semconv/registry/attributes";

/// The concerns in the order that a request meets them.
const ORDER: [&str; 6] = ["http", "users", "articles", "database", "celery", "job"];

pub(crate) fn text(registry: &Registry) -> String {
    let mut document = Document {
        registry,
        text: String::new(),
        linked: BTreeSet::new(),
    };
    document.write();
    document.text
}

struct Document<'a> {
    registry: &'a Registry,
    text: String,
    /// The families of upstream's attributes that are linked to.
    linked: BTreeSet<&'a str>,
}

impl<'a> Document<'a> {
    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(arguments)
            .expect("writing to a String cannot fail");
    }

    fn write(&mut self) {
        self.put(format_args!(
            "# Telemetry\n\
             \n\
             <!-- Written by scripts/telemetry-registry from crates/otel-service/registry; change it there. -->\n\
             \n\
             What the processes send: spans, metrics and logs by OTLP, named as the OpenTelemetry semantic conventions \
             {version} name\nthem and, where those have no name, as declared here. Names of ours are **bold**; \
             the others link to the conventions.\n\
             The variables that steer all this are told in the [README of the crate](../crates/otel-service/README.md), \
             what may\nstand in a log line in [logging](logging.md).\n",
            version = self.registry.upstream.version
        ));
        self.put(format_args!(
            "\n## Spans\n\nStatus is Error where work failed, with the exception as an `exception` event \
             (`exception.type`, `exception.message`);\nit stays Unset otherwise.\n"
        ));
        let mut spans: Vec<&Span> = self.registry.spans.iter().collect();
        spans.sort_by_key(|span| ORDER.iter().position(|concern| *concern == span.concern));
        for span in spans {
            self.span(span);
        }
        self.metrics();
        self.logs();
        self.put(format_args!("\n## Resource\n\n"));
        self.uses(&self.registry.resource);
        self.own_attributes();
        self.put(format_args!("\n"));
        for family in std::mem::take(&mut self.linked) {
            let page = family.replace('_', "-");
            self.put(format_args!("[{family}]: {CONVENTIONS}/{page}/\n"));
        }
    }

    fn span(&mut self, span: &'a Span) {
        let names: Vec<String> = span.names.iter().map(|name| format!("`{name}`")).collect();
        self.put(format_args!("\n### {}\n\n{}\n", names[0], span.brief));
        if let Some(note) = &span.note {
            self.put(format_args!("{}\n", note.trim_end()));
        }
        self.put(format_args!("\n- kind: {}\n", span.kind.as_str()));
        if let Some(parent) = &span.parent {
            self.put(format_args!("- parent: {parent}\n"));
        }
        if names.len() > 1 {
            self.put(format_args!("- also named: {}\n", names[1..].join(", ")));
        }
        self.put(format_args!("\n"));
        self.uses(&span.attributes);
    }

    fn metrics(&mut self) {
        self.put(format_args!(
            "\n## Metrics\n\nAttributes in parentheses are set when they apply. Every instrument is limited in its sets of \
             attributes;\nwhat exceeds the limit is counted on one point with `otel.metric.overflow`.\n\n\
             | name | instrument | unit | attributes | |\n| --- | --- | --- | --- | --- |\n"
        ));
        for (name, metric) in &self.registry.metrics {
            let attributes = names(&metric.attributes);
            self.put(format_args!(
                "| **`{name}`** | {} | `{}` | {attributes} | {} |\n",
                metric.instrument.as_str(),
                metric.unit,
                metric.brief
            ));
        }
        self.put(format_args!(
            "\nOf the conventions:\n\n| name | instrument | unit | attributes |\n| --- | --- | --- | --- |\n"
        ));
        for name in &self.registry.imported_metrics {
            let metric = &self.registry.upstream.metrics[name];
            let attributes = self.registry.measures.get(name).map(|uses| names(uses));
            self.put(format_args!(
                "| `{name}` | {} | `{}` | {} |\n",
                metric.instrument,
                metric.unit,
                attributes.unwrap_or_default()
            ));
        }
    }

    fn logs(&mut self) {
        self.put(format_args!(
            "\n## Logs\n\nThe fields of log events, which are the attributes of their records. Records of other crates \
             have fields of their own.\n"
        ));
        for logs in &self.registry.logs {
            self.put(format_args!("\n### Of {}\n\n{}\n\n", logs.of, logs.brief));
            self.put(format_args!("| field | type | |\n| --- | --- | --- |\n"));
            for used in &logs.attributes {
                let shown = self.linked_name(&used.name);
                let brief = used.brief.as_deref().unwrap_or_default();
                self.put(format_args!("| {shown} | {} | {brief} |\n", used.value_type));
            }
        }
    }

    fn uses(&mut self, uses: &'a [Use]) {
        self.put(format_args!(
            "| attribute | type | set | |\n| --- | --- | --- | --- |\n"
        ));
        for used in uses {
            let shown = self.linked_name(&used.name);
            let set = match &used.requirement_level {
                RequirementLevel::Required => "always",
                RequirementLevel::ConditionallyRequired(condition) => &format!("when {condition}"),
                RequirementLevel::Recommended => "where known",
                RequirementLevel::OptIn => "on request",
            };
            let brief = used.brief.as_deref().unwrap_or_default();
            self.put(format_args!(
                "| {shown} | {} | {set} | {brief} |\n",
                used.value_type
            ));
        }
    }

    /// Our names are bold, upstream's are links.
    fn linked_name(&mut self, name: &'a str) -> String {
        if self.registry.attributes.contains_key(name) {
            return format!("**`{name}`**");
        }
        let family = name.split('.').next().unwrap_or(name);
        self.linked.insert(family);
        format!("[`{name}`][{family}]")
    }

    fn own_attributes(&mut self) {
        self.put(format_args!(
            "\n## Attributes of our own\n\n| attribute | type | values | stability | |\n| --- | --- | --- | --- | --- |\n"
        ));
        // The fields of logs stand above.
        let attributes = self.registry.attributes.iter();
        for (name, attribute) in attributes.filter(|(_, attribute)| attribute.concern != "logs") {
            let values: Vec<String> = if attribute.members.is_empty() {
                attribute
                    .examples
                    .iter()
                    .map(|example| {
                        format!(
                            "`{}`",
                            example.as_str().map_or(example.to_string(), str::to_owned)
                        )
                    })
                    .collect()
            } else {
                attribute
                    .members
                    .iter()
                    .map(|member| match &member.brief {
                        Some(brief) => format!("`{}` ({})", member.value, brief.trim_end_matches('.')),
                        None => format!("`{}`", member.value),
                    })
                    .collect()
            };
            let which = if attribute.members.is_empty() {
                "such as "
            } else {
                ""
            };
            let which = if values.is_empty() { "" } else { which };
            self.put(format_args!(
                "| **`{name}`** | {} | {which}{} | {} | {}{} |\n",
                attribute.value_type,
                values.join(", "),
                attribute.stability.as_str(),
                attribute.brief,
                attribute
                    .note
                    .as_ref()
                    .map(|note| format!(" {note}"))
                    .unwrap_or_default()
            ));
        }
    }
}

/// The names of attributes in a cell of a table.
fn names(uses: &[Use]) -> String {
    let shown: Vec<String> = uses
        .iter()
        .map(|used| match used.requirement_level {
            RequirementLevel::Required => format!("`{}`", used.name),
            _ => format!("(`{}`)", used.name),
        })
        .collect();
    shown.join(", ")
}
