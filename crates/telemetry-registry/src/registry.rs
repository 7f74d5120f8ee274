//! The registry, resolved: every reference followed, every name known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::declaration::{File, Instrument, Member, RequirementLevel, SpanKind, Stability};
use crate::folder;
use crate::resolution;
use crate::upstream::Upstream;
use crate::value::ValueType;

/// Everything that is declared, by upstream and by us.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub(crate) upstream: Upstream,
    /// Ours, by name.
    pub(crate) attributes: BTreeMap<String, OwnAttribute>,
    pub(crate) spans: Vec<Span>,
    /// Ours, by name.
    pub(crate) metrics: BTreeMap<String, Metric>,
    /// Ours, by name.
    pub(crate) events: BTreeMap<String, Event>,
    pub(crate) imported_metrics: BTreeSet<String>,
    pub(crate) imported_events: BTreeSet<String>,
    /// What upstream metrics have, by name; `*` is all metrics.
    pub(crate) measures: BTreeMap<String, Vec<Use>>,
    pub(crate) resource: Vec<Use>,
    pub(crate) logs: Vec<Logs>,
}

/// An attribute of ours.
#[derive(Clone, Debug)]
pub(crate) struct OwnAttribute {
    pub(crate) value_type: ValueType,
    /// The values it may have; empty when any will do.
    pub(crate) members: Vec<Member>,
    pub(crate) brief: String,
    pub(crate) note: Option<String>,
    pub(crate) stability: Stability,
    pub(crate) examples: Vec<serde_json::Value>,
    /// The file that declares it, without its ending.
    pub(crate) concern: String,
}

/// An attribute where it is used.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) name: String,
    /// The type here, when the attribute leaves it open.
    pub(crate) value_type: ValueType,
    /// The meaning here; `None` for upstream's own.
    pub(crate) brief: Option<String>,
    pub(crate) requirement_level: RequirementLevel,
}

#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The forms of its name.
    pub(crate) names: Vec<String>,
    pub(crate) kind: SpanKind,
    pub(crate) parent: Option<String>,
    pub(crate) brief: String,
    pub(crate) note: Option<String>,
    pub(crate) attributes: Vec<Use>,
    pub(crate) concern: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) instrument: Instrument,
    pub(crate) unit: String,
    pub(crate) brief: String,
    pub(crate) attributes: Vec<Use>,
    pub(crate) concern: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) brief: String,
    pub(crate) attributes: Vec<Use>,
    pub(crate) concern: String,
}

/// Attributes of log records.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    /// Whose records.
    pub(crate) of: String,
    pub(crate) brief: String,
    pub(crate) attributes: Vec<Use>,
}

/// Why a registry is none.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    /// A file is not in the form that it should be in.
    #[error("{0}: {1}")]
    Malformed(String, String),
    /// The declarations contradict each other or upstream.
    #[error("{}", .0.join("\n"))]
    Contradictory(Vec<String>),
}

impl Registry {
    /// Reads the project's registry.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn load() -> Result<Self, RegistryError> {
        Self::load_with(&[])
    }

    /// Reads the project's registry and more declarations, each a name and its YAML: for tests that emit names of their
    /// own.
    ///
    /// # Errors
    /// When it cannot be read, or they are none together.
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
            let concern = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.extension().is_some_and(|ending| ending == "yaml") && concern != "manifest" {
                files.push((concern, read(&path)?));
            }
        }
        files.sort();
        files.extend(
            more.iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
        );
        Self::read(&upstream, &files)
    }

    /// Resolves declarations, each a file's name and its text.
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

    /// Whether upstream or we declare this attribute.
    pub fn declares_attribute(&self, name: &str) -> bool {
        self.value_type(name).is_some()
    }

    /// Whether we declare this metric, or import it from upstream.
    pub fn declares_metric(&self, name: &str) -> bool {
        self.metrics.contains_key(name) || self.imported_metrics.contains(name)
    }

    /// Whether we declare a span of this very name.
    pub fn declares_span(&self, name: &str) -> bool {
        self.spans
            .iter()
            .any(|span| span.names.iter().any(|form| form == name))
    }

    /// The type of an attribute, ours or upstream's.
    pub(crate) fn value_type(&self, name: &str) -> Option<ValueType> {
        let own = self.attributes.get(name).map(|own| own.value_type);
        own.or_else(|| Some(self.upstream.attribute(name)?.value_type))
    }
}
