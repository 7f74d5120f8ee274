//! Destination of a message on the server.

/// Destination of one copy of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// List of a queue.
    Queue { queue: String, priority: u8 },
    /// Channel of a fan-out exchange.
    Fanout { exchange: String, channel: String },
}

impl Destination {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Queue { queue, .. } => queue,
            Self::Fanout { channel, .. } => channel,
        }
    }
}
