//! Numbered batches that let a publisher detect that the broker has lost messages.

use thiserror::Error;

use super::error::BrokerError;

/// Log of the batches that one publisher has sent; see [`Client::send_logged`](crate::Client::send_logged).
///
/// The broker stores the length of the log together with the messages. When it loses recent data (`FLUSHALL`,
/// a restart without persistence, a fail-over to a replica that lagged), the stored length shrinks or
/// disappears, so the batches with higher numbers are known to be lost. Use each log in one process only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationLog {
    id: String,
    length: u64,
}

impl PublicationLog {
    /// Creates an empty log. `id` must be unique among all publishers of the broker, such as a random UUID.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            length: 0,
        }
    }

    /// Returns the id of the log.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the number of the last batch that the broker has confirmed, or 0 if there is none.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn extend(&mut self, length: u64) {
        self.length = length;
    }
}

/// Reply to a batch of a [`PublicationLog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogReply {
    /// The messages were sent, and the log has this length.
    Extended(u64),
    /// The broker has lost the batches with numbers above this one. Nothing was sent.
    Lost(u64),
}

/// Reason a batch of a [`PublicationLog`] was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoggedSendError {
    /// The broker has lost data since the last batch. Nothing was sent. Continue with a new log, and send the
    /// tasks of the batches above `kept` again.
    #[error("the broker has lost data: {kept} batches of the log are left")]
    Lost {
        /// Number of the last batch that is not lost.
        kept: u64,
    },
    /// The broker did not confirm. If the connection broke, the tasks may have been sent.
    #[error("the tasks were not sent: {0}")]
    Broker(#[from] BrokerError),
}
