//! [`Broker`] inside one process, for programs that run API and worker together and for tests. It keeps the promises
//! of the Redis one (priorities, reservations, leases, dead letters, results), but everything ends with the
//! process: so `publish` resolves only when the task has ended for good, retries included, and a caller with an
//! outbox keeps its row until then. Dropping that future does not stop the task.

mod backend;
mod bus;
mod chords;
mod dead;
mod schedule;
mod state;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use self::state::{Kept, State, step};
use crate::{
    broker::{Broker, BrokerError, Delivery, DeliveryTag, Depth, Publication, Renewal, Settled, Settlement},
    dead::encode as dead_letter,
    log::warn,
    message::Message,
    result::ResultMeta,
};

/// How long an idle receive waits.
const WAIT: Duration = Duration::from_millis(100);

/// A broker that lives and dies with the process.
pub struct MemoryBroker {
    capacity: usize,
    visibility_timeout: Duration,
    state: Mutex<State>,
    arrived: Notify,
    /// A result was stored.
    stored: Notify,
    bus: bus::MemoryBus,
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryBroker")
            .field("capacity", &self.capacity)
            .field("waiting", &state.waiting)
            .field("reserved", &state.reserved.len())
            .finish_non_exhaustive()
    }
}

impl MemoryBroker {
    /// A broker that holds at most `capacity` tasks that have not ended, and as many results and dead letters.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            visibility_timeout: Duration::from_secs(60),
            state: Mutex::default(),
            arrived: Notify::new(),
            stored: Notify::new(),
            bus: bus::MemoryBus::default(),
        }
    }

    /// How long a worker may go without renewing a delivery before it goes back; a minute by default.
    #[must_use]
    pub fn with_visibility_timeout(self, visibility_timeout: Duration) -> Self {
        Self {
            visibility_timeout,
            ..self
        }
    }

    /// [`publish`](Broker::publish) for a list element as it is, which need not be a message.
    ///
    /// # Errors
    /// When the broker is full.
    pub async fn publish_raw(&self, queue: &str, priority: u8, raw: Vec<u8>) -> Result<(), BrokerError> {
        let (ended, end) = oneshot::channel();
        {
            let mut state = self.state();
            if state.waiting + state.reserved.len() >= self.capacity {
                return Err(BrokerError::Full {
                    capacity: self.capacity,
                });
            }
            state.append(
                queue,
                Kept {
                    raw,
                    step: step(priority),
                    ended: Arc::new(ended),
                },
            );
        }
        self.arrived.notify_waiters();
        end.await.map_err(|_| BrokerError::Unavailable {
            cause: "the process is ending".to_owned(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, message: Message) -> Result<(), BrokerError> {
        self.publish_raw(
            message.queue(),
            message.properties.priority,
            message.encode().into_bytes(),
        )
        .await
    }

    async fn publish_batch(&self, messages: Vec<Message>) -> Vec<Result<(), BrokerError>> {
        join_all(messages.into_iter().map(|message| self.publish(message))).await
    }

    async fn publish_together(&self, publication: &Publication) -> Result<(), BrokerError> {
        let mut ends = Vec::with_capacity(publication.messages.len());
        {
            let mut state = self.state();
            let held = state.waiting + state.reserved.len();
            if held + publication.messages.len() > self.capacity {
                return Err(BrokerError::Full {
                    capacity: self.capacity,
                });
            }
            state.chords.begin(publication, self.capacity);
            for message in &publication.messages {
                let (ended, end) = oneshot::channel();
                ends.push(end);
                state.append(message.queue(), kept(message, Arc::new(ended)));
            }
        }
        self.arrived.notify_waiters();
        let ended = join_all(ends).await;
        if ended.iter().all(Result::is_ok) {
            return Ok(());
        }
        Err(BrokerError::Unavailable {
            cause: "the process is ending".to_owned(),
        })
    }

    async fn begin(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        Ok(self.state().begin_early(&delivery.tag))
    }

    async fn settle(&self, delivery: &Delivery, settlement: &Settlement) -> Result<Settled, BrokerError> {
        let reserved = {
            let mut state = self.state();
            let Some(reserved) = state.end(&delivery.tag) else {
                return Ok(Settled::NotHeld);
            };
            for (group, _) in &settlement.chords {
                state.chords.end(group);
            }
            for meta in &settlement.results {
                state.store(meta, self.capacity);
            }
            state.chords.begin(&settlement.publication, self.capacity);
            // The publisher waits on: what follows is part of what it has published.
            for message in &settlement.publication.messages {
                let ended = Arc::clone(&reserved.kept.ended);
                state.append(message.queue(), kept(message, ended));
            }
            reserved
        };
        self.stored.notify_waiters();
        self.arrived.notify_waiters();
        reserved.kept.end();
        Ok(Settled::Done)
    }

    async fn receive(&self, queues: &[String], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut arrival = std::pin::pin!(self.arrived.notified());
        // Before looking, so that what arrives between looking and waiting is noticed.
        arrival.as_mut().enable();
        let taken = self.state().take(queues, max);
        if !taken.is_empty() {
            return Ok(taken);
        }
        // Whether something arrived or the wait ended: look again.
        let _ = timeout(WAIT, arrival).await;
        Ok(self.state().take(queues, max))
    }

    async fn ack(&self, delivery: &Delivery, result: Option<&ResultMeta>) -> Result<(), BrokerError> {
        let ended = {
            let mut state = self.state();
            if let Some(meta) = result {
                state.store(meta, self.capacity);
            }
            state.end(&delivery.tag)
        };
        self.stored.notify_waiters();
        if let Some(reserved) = ended {
            reserved.kept.end();
        }
        Ok(())
    }

    async fn replace(
        &self,
        delivery: &Delivery,
        message: Message,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        {
            let mut state = self.state();
            let Some(reserved) = state.end(&delivery.tag) else {
                return Ok(());
            };
            if let Some(meta) = result {
                state.store(meta, self.capacity);
            }
            // The publisher waits on: the task goes on as another message.
            let kept = kept(&message, reserved.kept.ended);
            state.append(&reserved.queue, kept);
        }
        self.stored.notify_waiters();
        self.arrived.notify_waiters();
        Ok(())
    }

    async fn restore(&self, delivery: &Delivery) -> Result<(), BrokerError> {
        if self.state().give_back(&delivery.tag) {
            self.arrived.notify_waiters();
        }
        Ok(())
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        reason: &str,
        result: Option<&ResultMeta>,
    ) -> Result<(), BrokerError> {
        let ended = {
            let mut state = self.state();
            if let Some(meta) = result {
                state.store(meta, self.capacity);
            }
            let ended = state.end(&delivery.tag);
            if ended.is_some() {
                let letter = dead_letter(&delivery.queue, &delivery.raw, reason);
                state.dead.push_back(letter.into_bytes());
                if state.dead.len() > self.capacity.max(1) {
                    state.dead.pop_front();
                    warn!(
                        dropped = 1,
                        capacity = self.capacity,
                        "the dead-letter list is full: the oldest letters were dropped"
                    );
                }
            }
            ended
        };
        self.stored.notify_waiters();
        if let Some(reserved) = ended {
            reserved.kept.end();
        }
        Ok(())
    }

    async fn renew(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        let now = Instant::now();
        let mut state = self.state();
        for tag in deliveries {
            if let Some(reserved) = state.reserved.get_mut(tag) {
                reserved.renewed = now;
            }
        }
        Ok(Renewal::Kept)
    }

    async fn reserve(&self, _: &[Delivery]) -> Result<(), BrokerError> {
        // It loses nothing but with the process.
        Ok(())
    }

    fn renew_interval(&self) -> Duration {
        self.visibility_timeout / 3
    }

    async fn restore_expired(&self) -> Result<usize, BrokerError> {
        let mut state = self.state();
        let expired = state.expired(self.visibility_timeout);
        let restored = expired.iter().filter(|tag| state.give_back(tag)).count();
        drop(state);
        self.arrived.notify_waiters();
        Ok(restored)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BrokerError> {
        let state = self.state();
        let waiting = state
            .queues
            .get(queue)
            .map_or(0, |lists| lists.iter().map(VecDeque::len).sum());
        Ok(Depth {
            waiting: waiting as u64,
            unacked: state.reserved.len() as u64,
        })
    }

    async fn heads(&self, queue: &str) -> Result<Vec<Vec<u8>>, BrokerError> {
        let state = self.state();
        let lists = state.queues.get(queue);
        let heads = lists.into_iter().flatten().filter_map(VecDeque::front);
        Ok(heads.map(|kept| kept.raw.clone()).collect())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}

fn kept(message: &Message, ended: Arc<oneshot::Sender<()>>) -> Kept {
    Kept {
        raw: message.encode().into_bytes(),
        step: step(message.properties.priority),
        ended,
    }
}
