//! The error of reading a registry.

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
