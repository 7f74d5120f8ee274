//! A message on its way through a worker: its delivery, its reservation, and the counts of both.

use std::fmt;

use crate::message::{Message, Poison};

/// Names one delivery of one message. Every delivery has its own, so that a worker which lost a message to another
/// one cannot end the other's delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryTag(pub(crate) String);

impl DeliveryTag {
    /// The tag as brokers keep it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message that was taken from a queue and is reserved.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// Names this delivery.
    pub tag: DeliveryTag,
    /// The queue it was taken from.
    pub queue: String,
    /// The message as it lay in the queue.
    pub raw: Vec<u8>,
}

impl Delivery {
    /// The message.
    ///
    /// # Errors
    /// A [`Poison`] when no worker could run it.
    pub fn message(&self) -> Result<Message, Poison> {
        Message::decode(&self.raw)
    }
}

/// What a renewal has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// Everything is as it was.
    Kept,
    /// The broker has lost what it knew of this handle, and with it probably all reservations and messages. What is
    /// still being worked on should be [reserved](Broker::reserve) again; until then every renewal says so.
    Lost,
}

/// How many messages a broker holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Waiting in the queue, all priorities.
    pub waiting: u64,
    /// Reserved by workers, all queues.
    pub unacked: u64,
}
