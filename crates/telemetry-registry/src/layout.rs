//! The files of a project's registry, as listed in a YAML file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{RegistryError, parse, read};

/// The files of a registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// File with the names of the OpenTelemetry semantic conventions.
    pub(crate) upstream: PathBuf,
    pub(crate) registries: Vec<Declarations>,
    /// The generated document.
    pub(crate) document: PathBuf,
    /// Introductory paragraph of the document.
    pub(crate) introduction: String,
    /// Prefixes of `code.file.path`. Log events from these files may have only declared fields.
    pub(crate) sources: Vec<String>,
    /// Attribute names that are fixed by a contract and exempt from the naming rules.
    #[serde(default)]
    pub(crate) contract: BTreeSet<String>,
}

/// A folder of declarations, and the constants generated from it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declarations {
    pub(crate) folder: PathBuf,
    pub(crate) constants: PathBuf,
    /// Visibility of the constants, such as `pub(crate)`.
    pub(crate) visibility: String,
}

impl Layout {
    /// Reads a layout, whose paths are relative to the folder of the file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Self, RegistryError> {
        let mut layout: Self = parse(path.display().to_string(), &read(path)?)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let declared = layout.registries.iter_mut();
        let paths = declared.flat_map(|registry| [&mut registry.folder, &mut registry.constants]);
        for path in paths.chain([&mut layout.upstream, &mut layout.document]) {
            *path = base.join(&*path);
        }
        Ok(layout)
    }

    /// Returns the prefixes of the project's own sources, relative to its root.
    #[must_use]
    pub fn sources(&self) -> &[String] {
        &self.sources
    }
}
