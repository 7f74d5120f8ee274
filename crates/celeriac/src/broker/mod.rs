//! The broker port: the operations of a message broker that clients and workers use.
//! [`RedisBroker`](crate::RedisBroker) implements them for Celery on Redis,
//! [`MemoryBroker`](crate::MemoryBroker) inside one process, with the same guarantees.

mod bus;
mod dead;
mod delivery;
mod error;
mod exchange;
mod publication_log;
mod results;
pub(crate) mod sealed;
mod settlement;
mod timetable;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub(crate) use self::exchange::{Binding, log_dropped, queues};
pub use self::{
    bus::{Bus, ReplyTo, ServerInfo},
    dead::{DeadLetter, DeadLetters, LetterFilter, RequeueError, RequeueReport, RequeuedMessage},
    delivery::{Delivery, DeliveryTag, Depth, Recovery, Renewal},
    error::BrokerError,
    exchange::Exchange,
    publication_log::{LogReply, LoggedSendError, PublicationLog},
    results::{ChordPart, ChordState, ResultBackend},
    settlement::{Publication, Settlement, SettlementStatus},
    timetable::{LastTicks, Timetable},
};
use crate::{message::Message, result::ResultMeta};

/// Message broker and result backend.
///
/// A message is in exactly one place: waiting in a queue, reserved by a worker, or in the dead-letter list.
/// Every operation that moves a message does so in a single step that a crash cannot split. Unless noted
/// otherwise, an operation that failed is safe to repeat.
///
/// This trait is sealed: only [`RedisBroker`](crate::RedisBroker) and [`MemoryBroker`](crate::MemoryBroker)
/// implement it, so methods can be added without breaking users.
#[async_trait]
pub trait Broker: ResultBackend + Bus + DeadLetters + Timetable {
    /// Sends a message to its queue.
    ///
    /// Resolves when the broker has taken responsibility for the message: with Redis, when the server has
    /// confirmed it; with the in-process broker, which does not outlive the process, when the task has
    /// finished.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm. If the connection broke, the message may have been
    /// sent, and repeating the call can run the task twice.
    async fn publish(&self, message: Message) -> Result<(), BrokerError>;

    /// Sends several messages in one round trip, like [`publish`](Self::publish). Returns one result for
    /// each, in order.
    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), BrokerError>>;

    /// Sends several messages and extends `log` in one step, like [`publish`](Self::publish). Sends nothing
    /// if the broker has lost batches of the log.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm. If the connection broke, the messages may have been
    /// sent.
    async fn publish_logged(
        &self,
        log: &PublicationLog,
        messages: Vec<Message>,
    ) -> Result<LogReply, BrokerError>;

    /// Returns the length of each log in the broker's data, in order: batches with higher numbers are lost.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn log_lengths(&self, ids: &[String]) -> Result<Vec<u64>, BrokerError>;

    /// Sends messages that belong together, like [`publish`](Self::publish): all of them or none.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm. If the connection broke, all of the messages may have
    /// been sent.
    async fn publish_together(&self, publication: &Publication) -> Result<(), BrokerError>;

    /// Receives up to `max` messages from the queues, lowest priority number first, and reserves them for
    /// this broker handle.
    ///
    /// If there are none, waits for a fraction of a second; the list may be empty.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached. If messages were reserved, a later call returns
    /// them.
    async fn receive(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError>;

    /// Acknowledges a delivery and stores its result, in one step. Does nothing and returns false if the
    /// delivery is no longer held.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn ack(&self, delivery: &Delivery, result: Option<&ResultMeta>) -> Result<bool, BrokerError>;

    /// Acknowledges a delivery before its task starts. Returns false if the delivery is no longer held.
    ///
    /// From then on the message is never redelivered. The delivery still has to be [settled](Self::settle).
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn begin(&self, delivery: &Delivery) -> Result<bool, BrokerError>;

    /// Acknowledges a delivery, stores results and publishes follow-up tasks, in one step. Does nothing if
    /// the delivery is no longer held.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError>;

    /// Acknowledges a delivery and sends `message` in its place, in one step. Does nothing and returns false
    /// if the delivery is no longer held, because it was acknowledged or another worker has taken it over.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn replace(
        &self,
        delivery: &Delivery,
        message: Message,
        result: Option<&ResultMeta>,
    ) -> Result<bool, BrokerError>;

    /// Returns a message to the head of its queue, marked as redelivered. Does nothing and returns false if
    /// the delivery is no longer held.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn restore(&self, delivery: &Delivery) -> Result<bool, BrokerError>;

    /// Returns several messages to the heads of their queues, like [`restore`](Self::restore), in one round trip;
    /// the last one ends up first. Returns the number of messages.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn restore_batch(&self, deliveries: &[Delivery]) -> Result<usize, BrokerError>;

    /// Hands deliveries back to the broker until the `eta` of their messages, when [`receive`](Self::receive)
    /// returns them, with new tags, to any worker. Returns for each delivery whether it was postponed; if not,
    /// another worker has taken it over.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn postpone(&self, deliveries: &[(&Delivery, &Message)]) -> Result<Vec<bool>, BrokerError>;

    /// Returns up to `max` postponed deliveries from the queues, earliest first; fewer if the messages are large.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn postponed(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError>;

    /// Returns the postponed deliveries of these tasks.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn postponed_tasks(&self, task_ids: &[String]) -> Result<Vec<Delivery>, BrokerError>;

    /// Returns the postponed messages of these tasks to their queues immediately.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn recall(&self, task_ids: &[String]) -> Result<(), BrokerError>;

    /// Returns all postponed messages to their queues, unless another worker is alive, and adds their number to
    /// `returned`. With `is_leaving`, first ends the lease of this handle, which must not hold deliveries.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm. The messages that are not returned stay postponed.
    async fn return_postponed(&self, is_leaving: bool, returned: &mut usize) -> Result<(), BrokerError>;

    /// Moves a message that cannot be run to the dead-letter list.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn bury(
        &self,
        delivery: &Delivery,
        reason: &str,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError>;

    /// Returns a handle for one worker, with a lease and deliveries of its own, or `None` if any number of
    /// workers can share this handle.
    fn for_worker(&self) -> Option<Arc<dyn Broker>>;

    /// Returns a handle with the same lease and deliveries but connections of its own, for a thread with
    /// another runtime, or `None` if the broker has no connections.
    fn with_own_connections(&self) -> Option<Arc<dyn Broker>>;

    /// Renews the lease of this handle and the reservations of these deliveries. Other workers take over
    /// deliveries that are not renewed in time.
    ///
    /// Call at least every [`renew_interval`](Self::renew_interval), even without deliveries.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn renew(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError>;

    /// Writes again what the broker has lost: the reservations of `deliveries`, which this handle holds, that
    /// tasks with the tags `acknowledged` have been [acknowledged early](Self::begin), and recent
    /// settlements; see [`Renewal::Lost`].
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn reserve(
        &self,
        deliveries: &[Delivery],
        acknowledged: &[DeliveryTag],
    ) -> Result<Recovery, BrokerError>;

    /// Returns the time for which a renewal is valid, from the moment at which it was requested. Other
    /// workers may take over the deliveries of a handle that has not renewed its lease for this time.
    fn lease(&self) -> Duration;

    /// Returns the longest time between two calls of [`renew`](Self::renew), and of
    /// [`restore_expired`](Self::restore_expired).
    fn renew_interval(&self) -> Duration;

    /// Restores the messages of dead workers to their queues and returns the number of restored messages.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached. Messages restored until then stay in their
    /// queues.
    async fn restore_expired(&self) -> Result<usize, BrokerError>;

    /// Returns the number of messages in a queue, and the number of reserved messages.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError>;

    /// Returns the next message of each priority, which is the one that has waited longest, without receiving
    /// it.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn heads(&self, queue: &str) -> Result<Vec<Vec<u8>>, BrokerError>;

    /// Deletes the messages that wait in a queue and returns their number. Messages that workers hold, and postponed
    /// ones, are not deleted. Celery's `purge`.
    ///
    /// # Errors
    /// Returns an error if the broker did not confirm.
    async fn purge(&self, queue: &str) -> Result<u64, BrokerError>;

    /// Checks that the broker responds.
    ///
    /// # Errors
    /// Returns an error if it does not respond.
    async fn ping(&self) -> Result<(), BrokerError>;
}
