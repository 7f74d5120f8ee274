//! Deviations of received telemetry from the registry.

/// A difference between received telemetry and the registry.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[error("{item}: {problem}")]
pub struct Finding {
    /// Received item, such as `span article.create`.
    pub item: String,
    /// Difference from the declaration.
    pub problem: Problem,
}

/// Kind of difference.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Problem {
    /// The attribute is declared, but not for this item.
    #[error("the attribute {0} is not declared for this item")]
    NotAllowed(String),
    /// The attribute is required but missing.
    #[error("the required attribute {0} is missing")]
    Missing(String),
    /// Any other difference, with its description.
    #[error("{0}")]
    Other(String),
}
