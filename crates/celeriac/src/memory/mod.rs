//! In-process [`Broker`], for tests and for programs that contain both client and worker. It has the
//! guarantees of the Redis broker (priorities, reservations, leases, dead letters, results), but all data is
//! lost with the process. `publish` therefore resolves only when the task has finished, including retries: a
//! caller with an outbox keeps the row until then. Dropping the future of `publish` does not stop the task.

mod backend;
mod bus;
mod channels;
mod chords;
mod contents;
mod dead;
mod schedule;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use self::contents::{Contents, Reserved};
use crate::{
    broker::{
        Broker, BrokerError, Bus, Delivery, DeliveryTag, Depth, LogReply, Publication, PublicationLog,
        Recovery, Renewal, Settlement, SettlementStatus, log_dropped, sealed::Sealed,
    },
    lock::Lock,
    message::Message,
    result::ResultMeta,
    task_id::TaskId,
};

/// Maximum time that `receive` waits for a message.
const WAIT: Duration = Duration::from_millis(100);

/// Broker inside one process; its messages and results are lost when it is dropped.
pub struct MemoryBroker {
    visibility_timeout: Duration,
    /// Whether a publisher waits until its task has finished.
    waits: bool,
    contents: Lock<Contents>,
    /// Notified when a message is added to a queue.
    arrived: Notify,
    /// Notified when a result is stored.
    stored: Notify,
    bus: Lock<channels::Channels>,
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.contents.lock();
        f.debug_struct("MemoryBroker")
            .field("capacity", &contents.capacity)
            .field("waiting", &contents.waiting())
            .field("reserved", &contents.reserved.len())
            .finish_non_exhaustive()
    }
}

impl MemoryBroker {
    /// Creates a broker for at most `capacity` unfinished tasks, `capacity` results and `capacity` dead
    /// letters.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            visibility_timeout: Duration::from_secs(60),
            waits: true,
            contents: Lock::new(Contents {
                capacity,
                ..Contents::default()
            }),
            arrived: Notify::new(),
            stored: Notify::new(),
            bus: Lock::default(),
        }
    }

    /// Sets the time after which a delivery that is not renewed returns to its queue; one minute by default.
    #[must_use]
    pub fn visibility_timeout(self, visibility_timeout: Duration) -> Self {
        Self {
            visibility_timeout,
            ..self
        }
    }

    /// Makes publishers return when their message is in its queue.
    pub(crate) fn without_waiting(self) -> Self {
        Self { waits: false, ..self }
    }

    /// Publishes a raw list element, which need not be a valid message; see [`publish`](Broker::publish).
    ///
    /// # Errors
    /// Returns an error if the broker is full, or is dropped before the task finishes.
    pub async fn publish_raw(&self, queue: &str, priority: u8, raw: Vec<u8>) -> Result<(), BrokerError> {
        let completion = {
            let mut contents = self.contents.lock();
            contents.ensure_room(1)?;
            contents.publish(queue, priority, raw)
        };
        self.arrived.notify_waiters();
        if !self.waits {
            return Ok(());
        }
        completion.await.map_err(|_| shutting_down())
    }

    /// Broadcasts the messages of fan-out exchanges.
    async fn broadcast_all(&self, messages: &[Message]) -> Result<(), BrokerError> {
        for message in messages {
            let info = &message.properties.delivery_info;
            if info.is_fanout {
                self.broadcast(&info.exchange, &info.routing_key, message.encode())
                    .await?;
            }
        }
        Ok(())
    }

    fn find_postponed(&self, wanted: impl Fn(&TaskId, &str) -> bool, max: usize) -> Vec<Delivery> {
        let contents = self.contents.lock();
        let found = contents
            .later
            .iter()
            .filter(|(_, (id, message))| wanted(id, &message.queue));
        let deliveries = found.map(|((_, number), (_, message))| Delivery {
            tag: DeliveryTag(number.to_string()),
            queue: message.queue.clone(),
            raw: message.raw.clone(),
        });
        deliveries.take(max).collect()
    }

    fn length_of(&self, log: &str) -> u64 {
        self.contents.lock().logs.get(log).copied().unwrap_or_default()
    }

    /// Stores a result and removes a delivery that has no follow-up tasks, if the delivery is held, and calls
    /// `if_held`. Returns whether it was held.
    fn settle_alone(
        &self,
        delivery: &Delivery,
        result: Option<&ResultMeta>,
        if_held: impl FnOnce(&mut Contents),
    ) -> bool {
        let reserved = {
            let mut contents = self.contents.lock();
            let Some(reserved) = contents.remove(&delivery.tag) else {
                return false;
            };
            contents.store(result);
            if_held(&mut contents);
            reserved
        };
        self.stored.notify_waiters();
        reserved.message.complete();
        true
    }
}

impl Sealed for MemoryBroker {}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        self.publish_together(&Publication {
            messages: vec![message],
            ..Publication::default()
        })
        .await
    }

    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), BrokerError>> {
        join_all(messages.into_iter().map(|message| self.publish(message))).await
    }

    async fn publish_logged(
        &self,
        log: &PublicationLog,
        messages: Vec<Message>,
    ) -> Result<LogReply, BrokerError> {
        let kept = self.length_of(log.id());
        if kept < log.length() {
            return Ok(LogReply::Lost(kept));
        }
        self.publish_together(&Publication {
            messages,
            ..Publication::default()
        })
        .await?;
        let mut contents = self.contents.lock();
        let length = contents.logs.entry(log.id().to_owned()).or_default();
        *length += 1;
        Ok(LogReply::Extended(*length))
    }

    async fn log_lengths(&self, ids: &[String]) -> Result<Vec<u64>, BrokerError> {
        Ok(ids.iter().map(|id| self.length_of(id)).collect())
    }

    async fn publish_together(&self, publication: &Publication) -> Result<(), BrokerError> {
        let mut completions = Vec::with_capacity(publication.messages.len());
        {
            let mut contents = self.contents.lock();
            let mut copies = Vec::with_capacity(publication.messages.len());
            for message in &publication.messages {
                let queues = contents.queues_of(message)?;
                copies.extend(queues.into_iter().map(|queue| (queue, message)));
            }
            contents.ensure_room(copies.len())?;
            contents.begin_chords(publication);
            for (queue, message) in copies {
                let raw = message.encode().into_bytes();
                completions.push(contents.publish(&queue, message.properties.priority, raw));
            }
        }
        self.broadcast_all(&publication.messages).await?;
        self.arrived.notify_waiters();
        if !self.waits {
            return Ok(());
        }
        let completed = try_join_all(completions).await;
        completed.map(|_| ()).map_err(|_| shutting_down())
    }

    async fn begin(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        Ok(self.contents.lock().ack_early(&delivery.tag))
    }

    async fn settle(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<SettlementStatus, BrokerError> {
        let reserved = {
            let mut contents = self.contents.lock();
            let Some(reserved) = contents.remove(&delivery.tag) else {
                return Ok(SettlementStatus::NotHeld);
            };
            for (group, _) in &settlement.chords {
                contents.chords.end(group);
            }
            contents.store(&settlement.results);
            contents.store_unless_ended(&settlement.skipped);
            contents.begin_chords(&settlement.publication);
            if let Some(reason) = &settlement.dead_letter {
                contents.bury(delivery, reason);
            }
            // The publisher is notified only after the messages that its message causes.
            for message in &settlement.publication.messages {
                let queues = contents.queues_of(message).unwrap_or_else(|error| {
                    log_dropped(message, &error);
                    Vec::new()
                });
                for queue in queues {
                    let finished = Arc::clone(&reserved.message.finished);
                    contents.follow(&queue, message, finished);
                }
            }
            reserved
        };
        self.broadcast_all(&settlement.publication.messages).await?;
        self.stored.notify_waiters();
        self.arrived.notify_waiters();
        reserved.message.complete();
        Ok(SettlementStatus::Applied)
    }

    async fn receive(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut arrival = std::pin::pin!(self.arrived.notified());
        // Registered before the first check; otherwise a message that arrives in between would be missed.
        arrival.as_mut().enable();
        let taken = self.contents.lock().take(queues, max);
        if !taken.is_empty() {
            return Ok(taken);
        }
        let _ = timeout(WAIT, arrival).await;
        Ok(self.contents.lock().take(queues, max))
    }

    async fn ack(&self, delivery: &Delivery, result: Option<&ResultMeta>) -> Result<bool, BrokerError> {
        Ok(self.settle_alone(delivery, result, |_| {}))
    }

    async fn replace(
        &self,
        delivery: &Delivery,
        message: Message,
        result: Option<&ResultMeta>,
    ) -> Result<bool, BrokerError> {
        {
            let mut contents = self.contents.lock();
            let Some(Reserved { message: held, .. }) = contents.remove(&delivery.tag) else {
                return Ok(false);
            };
            contents.store(result);
            // The publisher keeps waiting for the message that replaces its own.
            contents.follow(&held.queue, &message, held.finished);
        }
        self.stored.notify_waiters();
        self.arrived.notify_waiters();
        Ok(true)
    }

    async fn restore(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let restored = self.contents.lock().restore(&delivery.tag);
        if restored {
            self.arrived.notify_waiters();
        }
        Ok(restored)
    }

    async fn restore_batch(&self, deliveries: &[Delivery]) -> Result<usize, BrokerError> {
        let mut restored = 0;
        for delivery in deliveries {
            restored += usize::from(self.restore(delivery).await?);
        }
        Ok(restored)
    }

    async fn postpone(&self, deliveries: &[(&Delivery, &Message)]) -> Result<Vec<bool>, BrokerError> {
        let mut contents = self.contents.lock();
        let postponed = deliveries
            .iter()
            .map(|(delivery, message)| contents.postpone(delivery, message));
        Ok(postponed.collect())
    }

    async fn postponed(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        Ok(self.find_postponed(|_, queue| queues.iter().any(|known| known == queue), max))
    }

    async fn postponed_tasks(&self, task_ids: &[String]) -> Result<Vec<Delivery>, BrokerError> {
        Ok(self.find_postponed(|id, _| task_ids.iter().any(|wanted| *id == **wanted), usize::MAX))
    }

    async fn recall(&self, task_ids: &[String]) -> Result<(), BrokerError> {
        let is_wanted = |id: &TaskId| task_ids.iter().any(|wanted| *id == **wanted);
        self.contents.lock().recall(|_, id| is_wanted(id));
        self.arrived.notify_waiters();
        Ok(())
    }

    async fn return_postponed(&self, _: bool, returned: &mut usize) -> Result<(), BrokerError> {
        // If another worker is alive, it postpones them again.
        *returned += self.contents.lock().recall(|_, _| true);
        Ok(())
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        reason: &str,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        self.settle_alone(delivery, result, |contents| contents.bury(delivery, reason));
        Ok(())
    }

    fn for_worker(&self) -> Option<Arc<dyn Broker>> {
        None
    }

    fn with_own_connections(&self) -> Option<Arc<dyn Broker>> {
        None
    }

    async fn renew(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        let now = Instant::now();
        let mut contents = self.contents.lock();
        let mut taken = Vec::new();
        for tag in deliveries {
            match contents.reserved.get_mut(tag) {
                Some(reserved) => reserved.renewed = now,
                None => taken.push(tag.clone()),
            }
        }
        Ok(if taken.is_empty() {
            Renewal::Kept
        } else {
            Renewal::Taken(taken)
        })
    }

    async fn reserve(&self, _: &[Delivery], _: &[DeliveryTag]) -> Result<Recovery, BrokerError> {
        // Reservations are lost only together with the process.
        Ok(Recovery::default())
    }

    fn lease(&self) -> Duration {
        self.visibility_timeout
    }

    fn renew_interval(&self) -> Duration {
        self.visibility_timeout / 3
    }

    async fn restore_expired(&self) -> Result<usize, BrokerError> {
        let mut contents = self.contents.lock();
        let expired = contents.expired(self.visibility_timeout);
        let restored = expired.iter().filter(|tag| contents.restore(tag)).count();
        drop(contents);
        self.arrived.notify_waiters();
        Ok(restored)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let contents = self.contents.lock();
        let waiting = contents
            .queues
            .get(queue)
            .map_or(0, |lists| lists.iter().map(VecDeque::len).sum());
        Ok(Depth {
            waiting: waiting as u64,
            unacked: (contents.reserved.len() + contents.later.len()) as u64,
        })
    }

    async fn heads(&self, queue: &str) -> Result<Vec<Vec<u8>>, BrokerError> {
        let contents = self.contents.lock();
        let lists = contents.queues.get(queue);
        let heads = lists.into_iter().flatten().filter_map(VecDeque::front);
        Ok(heads.map(|message| message.raw.clone()).collect())
    }

    async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        let purged = self.contents.lock().queues.remove(queue);
        let purged: Vec<_> = purged.into_iter().flatten().flatten().collect();
        let count = purged.len() as u64;
        purged.into_iter().for_each(|message| message.complete());
        Ok(count)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}

/// Returns the error for a publisher whose message was dropped with the broker.
fn shutting_down() -> BrokerError {
    BrokerError::unavailable("the broker was shut down before the task finished")
}
