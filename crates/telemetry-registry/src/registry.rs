//! The resolved registry, with all references followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::declaration::{File, Instrument, Member, RequirementLevel, SpanKind, Stability};
use crate::folder;
use crate::resolution;
use crate::upstream::Upstream;
use crate::value::ValueType;

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
}

/// An attribute that this project declares.
#[derive(Clone, Debug)]
pub(crate) struct OwnAttribute {
    pub(crate) value_type: ValueType,
    /// Permitted values; empty if all are.
    pub(crate) members: Vec<Member>,
    pub(crate) brief: String,
    pub(crate) note: Option<String>,
    pub(crate) stability: Stability,
    pub(crate) examples: Vec<serde_json::Value>,
    /// Name of the declaring file without its extension.
    pub(crate) area: String,
}

/// A use of an attribute by a span, metric, event or resource.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) name: String,
    /// Type in this use, which may be narrower than the declared one.
    pub(crate) value_type: ValueType,
    /// Description in this use; `None` for that of upstream.
    pub(crate) brief: Option<String>,
    pub(crate) requirement_level: RequirementLevel,
}

#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Permitted names; `{attribute}` stands for the value of an attribute.
    pub(crate) names: Vec<String>,
    pub(crate) kind: SpanKind,
    pub(crate) parent: Option<String>,
    pub(crate) brief: String,
    pub(crate) note: Option<String>,
    pub(crate) attributes: Vec<Use>,
    pub(crate) area: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) instrument: Instrument,
    pub(crate) unit: String,
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

/// Error reading a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    /// A file has a syntax error or an unknown field.
    #[error("{0}: {1}")]
    Malformed(String, String),
    /// Declarations are incomplete, or contradict each other or upstream.
    #[error("{}", .0.join("\n"))]
    Contradictory(Vec<String>),
}

impl Registry {
    /// Reads the registry of the project.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or the registry is invalid.
    pub fn load() -> Result<Self, RegistryError> {
        Self::load_with(&[])
    }

    /// Reads the registry of the project together with more declarations, each a name and its YAML.
    ///
    /// For tests that emit names of their own.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or the combined registry is invalid.
    pub fn load_with(more: &[(&str, &str)]) -> Result<Self, RegistryError> {
        let folder = folder();
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|error| RegistryError::Unreadable(path.display().to_string(), error))
        };
        let upstream = read(&folder.join("upstream.txt"))?;
        let mut files = Vec::new();
        let entries = fs::read_dir(&folder)
            .map_err(|error| RegistryError::Unreadable(folder.display().to_string(), error))?;
        for entry in entries {
            let path = entry
                .map_err(|error| RegistryError::Unreadable(folder.display().to_string(), error))?
                .path();
            let area = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.extension().is_some_and(|extension| extension == "yaml") && area != "manifest" {
                files.push((area, read(&path)?));
            }
        }
        files.sort();
        files.extend(
            more.iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
        );
        Self::read(&upstream, &files)
    }

    /// Resolves declarations, each the name and the text of a file.
    pub(crate) fn read(upstream: &str, files: &[(String, String)]) -> Result<Self, RegistryError> {
        let upstream = Upstream::parse(upstream)
            .map_err(|line| RegistryError::Malformed("upstream.txt".to_owned(), line))?;
        let mut parsed = Vec::new();
        for (name, text) in files {
            let file: File = serde_saphyr::from_str(text)
                .map_err(|error| RegistryError::Malformed(format!("{name}.yaml"), error.to_string()))?;
            parsed.push((name.as_str(), file));
        }
        resolution::resolve(upstream, &parsed).map_err(RegistryError::Contradictory)
    }

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

    /// Returns the type of an attribute of this project or of upstream.
    pub(crate) fn value_type(&self, name: &str) -> Option<ValueType> {
        let own = self.attributes.get(name).map(|own| own.value_type);
        own.or_else(|| Some(self.upstream.attribute(name)?.value_type))
    }
}
