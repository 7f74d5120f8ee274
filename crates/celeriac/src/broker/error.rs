//! The error of every broker operation.

use thiserror::Error;

/// Why a broker did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// It cannot be reached, or the connection broke before it answered. Try again later.
    #[error("the broker is unavailable: {cause}")]
    Unavailable {
        /// What the connection said.
        cause: String,
    },
    /// It answered with an error. Trying again helps only if someone repairs the server.
    #[error("the broker refused: {cause}")]
    Refused {
        /// What the server said.
        cause: String,
    },
    /// It holds as many messages as it may. Try again when workers have caught up.
    #[error("the broker is full: it holds {capacity} messages")]
    Full {
        /// The bound.
        capacity: usize,
    },
}

impl BrokerError {
    /// A low-cardinality name for metrics and spans.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Full { .. } => "full",
        }
    }
}
