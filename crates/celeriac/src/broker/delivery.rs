//! Received messages: deliveries, their reservations, and the counts of messages.

use std::fmt;

use crate::message::{Message, Poison};

/// Id of one delivery of a message. Every delivery has its own id, so a worker that has lost a message to
/// another worker cannot settle that worker's delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryTag(pub(crate) String);

impl DeliveryTag {
    /// Returns the tag as stored by the broker.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the worker instance in a tag of the Redis broker.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.0.split_once('/').map(|(instance, _)| instance)
    }
}

impl fmt::Display for DeliveryTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message that was received from a queue and is reserved.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// Id of this delivery.
    pub tag: DeliveryTag,
    /// Queue it was received from.
    pub queue: String,
    /// The message as stored in the queue.
    pub raw: Vec<u8>,
}

impl Delivery {
    /// Decodes the message.
    ///
    /// # Errors
    /// Returns a [`Poison`] if no worker could run the message.
    pub fn message(&self) -> Result<Message, Poison> {
        Message::decode(&self.raw)
    }

    /// Splits off a batch of at most `max` deliveries, which ends with the delivery that reaches `bytes`.
    pub(crate) fn split_batch(deliveries: &[Self], max: usize, bytes: usize) -> (&[Self], &[Self]) {
        let mut size = 0;
        let fits = |delivery: &&Self| {
            let fits = size < bytes;
            size += delivery.raw.len();
            fits
        };
        let count = deliveries.iter().take(max).take_while(fits).count();
        deliveries.split_at(count)
    }
}

/// Result of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// The reservations are renewed.
    Kept,
    /// The lease is renewed, but these deliveries are no longer reserved for this handle: another worker has
    /// taken them over. They must not be run or settled.
    Taken(Vec<DeliveryTag>),
    /// The broker has lost data of this handle: all of it, or what was written last.
    /// [Reserve](crate::Broker::reserve) all deliveries in progress again; until then every renewal returns
    /// this value.
    Lost,
}

/// Numbers of what a worker has written again after a broker had lost it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Deliveries reserved again.
    pub reserved: usize,
    /// Settlements written again, with their results, retries and follow-up tasks.
    pub rewritten: usize,
}

/// Number of messages that a broker holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Messages waiting in the queue, in all priorities.
    pub waiting: u64,
    /// Messages of all queues that are postponed or reserved by workers.
    pub unacked: u64,
}
