//! What a message broker does for clients and workers. [`RedisBroker`](crate::RedisBroker) does it for Celery on
//! Redis, [`MemoryBroker`](crate::MemoryBroker) inside one process; both keep the same promises, so that nothing
//! above knows which one it talks to.

mod bus;
mod dead;
mod delivery;
mod error;
mod results;
pub(crate) mod sealed;
mod settlement;
mod timetable;

use std::time::Duration;

use async_trait::async_trait;

pub use self::{
    bus::{Bus, ReplyTo, ServerInfo},
    dead::{DeadLetter, DeadLetters, LetterFilter, RequeueError, RequeueReport, RequeuedMessage},
    delivery::{Delivery, DeliveryTag, Depth, Renewal},
    error::BrokerError,
    results::{ChordPart, ChordState, ResultBackend},
    settlement::{Publication, Settlement, SettlementStatus},
    timetable::{LastTicks, Timetable},
};
use crate::{message::Message, result::ResultMeta};

/// Takes, keeps and hands out task messages; as a [`ResultBackend`], keeps their results.
///
/// A message is in exactly one place: waiting in a queue, reserved by a worker, or in the dead-letter list. Every
/// method that moves one does so in a single step that a crash cannot split.
#[async_trait]
pub trait Broker: ResultBackend + Bus + DeadLetters + Timetable {
    /// Puts a message in its queue. Resolves when the broker has taken responsibility for it: for Redis when it has
    /// answered; for the broker inside the process, which dies with it, when the task has ended for good.
    ///
    /// # Errors
    /// When the broker did not confirm. The message may nevertheless be there if the connection broke in between:
    /// sending it again can run it twice.
    async fn publish(&self, message: Message) -> Result<(), BrokerError>;

    /// [`publish`](Self::publish) for several messages in one round trip; one answer each, in order.
    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), BrokerError>>;

    /// [`publish`](Self::publish) for messages that belong together.
    ///
    /// # Errors
    /// When the broker did not confirm. Everything may nevertheless be there if the connection broke in between, but
    /// never a part of it.
    async fn publish_together(&self, publication: &Publication) -> Result<(), BrokerError>;

    /// Takes up to `max` messages from the queues, lowest priority number first, and reserves them for this broker
    /// handle in the same step. Waits a moment (well under a second) when there are none; the answer may be empty.
    ///
    /// # Errors
    /// When the broker cannot be reached. Nothing is lost: what was reserved meanwhile comes with a later call.
    async fn receive(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError>;

    /// Ends a delivery and stores its result, in one step.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn ack(&self, delivery: &Delivery, result: Option<&ResultMeta>) -> Result<(), BrokerError>;

    /// Acknowledges a delivery before its task begins: it is never given back from now on, and ends with
    /// [`settle`](Self::settle). False when it is not held.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn begin(&self, delivery: &Delivery) -> Result<bool, BrokerError>;

    /// Ends a delivery together with everything that follows from its end, in one step. Does nothing when the delivery
    /// is no longer held.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError>;

    /// Ends a delivery and sends `message` in its place, in one step. Does nothing when the delivery is no longer
    /// held (it was ended, or another worker has taken it over).
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn replace(
        &self,
        delivery: &Delivery,
        message: Message,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError>;

    /// Gives a message back to the head of its queue, marked as redelivered.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn restore(&self, delivery: &Delivery) -> Result<(), BrokerError>;

    /// Moves a message that cannot be run to the dead-letter list.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn bury(
        &self,
        delivery: &Delivery,
        reason: &str,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError>;

    /// Says that these deliveries are still being worked on, so that nobody takes them over. To be called at least
    /// every [`renew_interval`](Self::renew_interval), also without deliveries.
    ///
    /// # Errors
    /// When the broker did not confirm.
    async fn renew(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError>;

    /// Reserves deliveries that this handle holds and the broker has lost, see [`Renewal::Lost`].
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn reserve(&self, deliveries: &[Delivery]) -> Result<(), BrokerError>;

    /// How often [`renew`](Self::renew) and [`restore_expired`](Self::restore_expired) are due.
    fn renew_interval(&self) -> Duration;

    /// Gives back what workers held that are gone. Returns how many messages.
    ///
    /// # Errors
    /// When the broker cannot be reached; what was given back until then stays so.
    async fn restore_expired(&self) -> Result<usize, BrokerError>;

    /// How many messages there are.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError>;

    /// The messages that come next, one for each priority that has some: nothing else of their priority has waited longer.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn heads(&self, queue: &str) -> Result<Vec<Vec<u8>>, BrokerError>;

    /// Whether the broker answers.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), BrokerError>;
}
