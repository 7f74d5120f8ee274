//! The files of a project's registry, as a YAML file lists them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{RegistryError, parse, read};

/// The files of a registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Names of the OpenTelemetry semantic conventions.
    pub(crate) upstream: PathBuf,
    pub(crate) registries: Vec<Declarations>,
    /// The generated document.
    pub(crate) document: PathBuf,
    /// A paragraph of the document with links for its readers.
    pub(crate) introduction: String,
    /// Prefixes of `code.file.path` whose log events may only have declared fields.
    pub(crate) sources: Vec<String>,
    /// Names of attributes that a contract fixes: the rules for the format of names do not apply to them.
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
    /// Reads a layout. Its paths are relative to the file.
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
