//! Error type of all broker operations.

use thiserror::Error;

/// Reason a broker operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker cannot be reached, or the connection broke before the reply. Retry later.
    #[error("the broker is unavailable: {cause}")]
    Unavailable {
        /// Error of the connection.
        cause: String,
    },
    /// The broker can be reached but denies access: the password is missing or wrong, the account lacks a
    /// permission, or the server is in protected mode. Retrying helps only after the settings are changed.
    #[error("the broker denies access: {cause}")]
    Denied {
        /// Error of the server, and a way out.
        cause: String,
    },
    /// The broker replied with an error. Retrying helps only after the cause is fixed.
    #[error("the broker refused: {cause}")]
    Refused {
        /// Error of the server.
        cause: String,
    },
    /// The broker has reached its capacity. Retry when workers have caught up.
    #[error("the broker is full: it holds {capacity} messages")]
    Full {
        /// Maximum number of messages.
        capacity: usize,
    },
    /// A stored result cannot be read.
    #[error("a result cannot be read: {cause}")]
    Unreadable {
        /// Serialisation or compression that is not supported, or the syntax error.
        cause: String,
    },
}

impl BrokerError {
    pub(crate) fn unavailable(cause: impl Into<String>) -> Self {
        Self::Unavailable { cause: cause.into() }
    }

    /// Returns whether no command works until the connection, the server or the account is repaired.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Denied { .. })
    }

    /// Returns a low-cardinality name for metrics and spans.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
            Self::Full { .. } => "full",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}
