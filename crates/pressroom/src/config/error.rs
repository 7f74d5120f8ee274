//! The error for an invalid setting.

use std::fmt;

use super::setting::Setting;

/// Result of reading settings.
pub type Result<T, E = ConfigError> = std::result::Result<T, E>;

/// Error for a missing or invalid setting. The message fits on one line and contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    pub variable: &'static str,
    pub problem: String,
    /// Whether the value was given as an option.
    pub is_option: bool,
}

impl ConfigError {
    pub(super) fn new(variable: &'static str, problem: impl fmt::Display) -> Self {
        Self {
            variable,
            problem: problem.to_string(),
            is_option: false,
        }
    }

    /// The error for a setting that another setting requires.
    pub(super) fn required_with(setting: Setting, other: Setting) -> Self {
        Self::new(setting.variable, format!("is required with {}", other.variable))
    }
}
