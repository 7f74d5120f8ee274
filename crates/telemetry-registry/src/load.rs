//! Reads registries.

use std::fs;
use std::path::Path;

use crate::error::{RegistryError, parse, read};
use crate::layout::Layout;
use crate::registry::Registry;
use crate::resolution;
use crate::upstream::Upstream;

impl Registry {
    /// Reads the registry of a project.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or the registry is invalid.
    pub fn load(layout: &Layout) -> Result<Self, RegistryError> {
        Self::load_with(layout, &[])
    }

    /// Reads the registry of a project together with more declarations, each a name and its YAML.
    ///
    /// For tests that emit names of their own.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or the combined registry is invalid.
    pub fn load_with(layout: &Layout, more: &[(&str, &str)]) -> Result<Self, RegistryError> {
        let mut files = Vec::new();
        let mut folders = Vec::new();
        for (index, registry) in layout.registries.iter().enumerate() {
            for (area, text) in declarations(&registry.folder)? {
                folders.push((area.clone(), index));
                files.push((area, text));
            }
        }
        files.sort();
        let more = more
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        files.extend(more);
        let upstream = Upstream::parse(&read(&layout.upstream)?)
            .map_err(|line| RegistryError::Malformed("upstream.txt".to_owned(), line))?;
        let mut parsed = Vec::new();
        for (name, text) in &files {
            parsed.push((name.as_str(), parse(format!("{name}.yaml"), text)?));
        }
        let mut registry =
            resolution::resolve(upstream, &layout.contract, &parsed).map_err(RegistryError::Contradictory)?;
        // An area in several folders, such as `logs`, belongs to the first folder.
        for (area, index) in folders {
            registry.folders.entry(area).or_insert(index);
        }
        registry.sources = layout.sources.clone();
        Ok(registry)
    }
}

/// Returns the area and the text of each file of declarations in `folder`.
fn declarations(folder: &Path) -> Result<Vec<(String, String)>, RegistryError> {
    let unreadable = |error| RegistryError::Unreadable(folder.display().to_string(), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let area = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.extension().is_some_and(|extension| extension == "yaml") && area != "manifest" {
            files.push((area, read(&path)?));
        }
    }
    Ok(files)
}
