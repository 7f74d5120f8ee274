//! Reading of the files of a registry, and its errors.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

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

/// Reads the text of a file.
pub(crate) fn read(path: &Path) -> Result<String, RegistryError> {
    fs::read_to_string(path).map_err(|error| RegistryError::Unreadable(path.display().to_string(), error))
}

/// Parses the YAML of the file `name`.
pub(crate) fn parse<T: DeserializeOwned>(name: String, yaml: &str) -> Result<T, RegistryError> {
    serde_saphyr::from_str(yaml).map_err(|error| RegistryError::Malformed(name, error.to_string()))
}
