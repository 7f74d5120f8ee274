//! The resolved registry, with all references followed.

use std::collections::{BTreeMap, BTreeSet};

use crate::declaration::{Member, RequirementLevel};
use crate::naming::Naming;
use crate::upstream::{MetricDefinition, Upstream};

/// The declarations of this project and of upstream.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub(crate) upstream: Upstream,
    /// Attributes of this project by name.
    pub(crate) attributes: BTreeMap<String, OwnAttribute>,
    pub(crate) spans: Vec<Span>,
    /// Metrics of this project by name.
    pub(crate) metrics: BTreeMap<String, Metric>,
    /// Events of this project by name.
    pub(crate) events: BTreeMap<String, Event>,
    pub(crate) imported_metrics: BTreeSet<String>,
    pub(crate) imported_events: BTreeSet<String>,
    /// Attributes of upstream metrics by the name of the metric; `*` applies to every metric.
    pub(crate) measures: BTreeMap<String, Vec<Use>>,
    pub(crate) resource: Vec<Use>,
    pub(crate) logs: Vec<Logs>,
    pub(crate) naming: Naming,
    /// Prefixes of `code.file.path` whose log events may only have declared fields.
    pub(crate) sources: Vec<String>,
    /// Index of the folder of each area, in the order of the layout.
    pub(crate) folders: BTreeMap<String, usize>,
}

/// An attribute that this project declares.
#[derive(Clone, Debug)]
pub(crate) struct OwnAttribute {
    pub(crate) value_type: &'static str,
    /// Permitted values; empty if all are.
    pub(crate) members: Vec<Member>,
    pub(crate) brief: String,
    pub(crate) note: Option<String>,
    pub(crate) stability: String,
    pub(crate) examples: Vec<serde_json::Value>,
    /// Name of the declaring file without its extension.
    pub(crate) area: String,
}

/// A use of an attribute by a span, metric, event or resource.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) name: String,
    /// Type in this use, which may be narrower than the declared type.
    pub(crate) value_type: &'static str,
    /// Description in this use; `None` for the upstream description.
    pub(crate) brief: Option<String>,
    pub(crate) requirement_level: RequirementLevel,
}

#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Permitted names; `{attribute}` stands for the value of an attribute.
    pub(crate) names: Vec<String>,
    pub(crate) kind: String,
    pub(crate) parent: Option<String>,
    pub(crate) brief: String,
    pub(crate) note: Option<String>,
    pub(crate) attributes: Vec<Use>,
    pub(crate) area: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) definition: MetricDefinition,
    pub(crate) brief: String,
    pub(crate) attributes: Vec<Use>,
    pub(crate) area: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) brief: String,
    pub(crate) attributes: Vec<Use>,
    pub(crate) area: String,
}

/// Attributes of log records.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    /// Description of the log records.
    pub(crate) source: String,
    pub(crate) brief: String,
    pub(crate) attributes: Vec<Use>,
}

impl Registry {
    /// Whether this project or upstream declares the attribute.
    pub fn declares_attribute(&self, name: &str) -> bool {
        self.value_type(name).is_some()
    }

    /// Whether this project declares the metric or imports it from upstream.
    pub fn declares_metric(&self, name: &str) -> bool {
        self.metrics.contains_key(name) || self.imported_metrics.contains(name)
    }

    /// Whether this project declares a span with exactly this name.
    pub fn declares_span(&self, name: &str) -> bool {
        self.spans
            .iter()
            .any(|span| span.names.iter().any(|pattern| pattern == name))
    }

    /// Returns a metric of this project or of upstream with its attributes.
    pub(crate) fn metric(&self, name: &str) -> Option<(&MetricDefinition, &[Use])> {
        if let Some(own) = self.metrics.get(name) {
            return Some((&own.definition, &own.attributes));
        }
        let uses = self.measures.get(name).map_or(&[][..], Vec::as_slice);
        Some((self.upstream.metrics.get(name)?, uses))
    }

    /// Returns the type of an attribute of this project or of upstream.
    pub(crate) fn value_type(&self, name: &str) -> Option<&'static str> {
        let own = self.attributes.get(name).map(|own| own.value_type);
        own.or_else(|| Some(self.upstream.attribute(name)?.value_type))
    }
}
