//! Receives messages. A script pops and reserves in one step, so that a message is always either in its queue
//! or reserved.
//!
//! Waiting must not pop: `BRPOP` would remove a message before it is reserved. `BLMOVE queue queue RIGHT
//! RIGHT`, which moves the oldest message to where it already is, returns as soon as there is a message and
//! changes nothing. It can wait for only one list, that of priorities 0 to 2 of one queue; the other lists
//! are checked when the wait ends, after [`WAIT`] at the latest.
//!
//! If the answer is lost because the connection broke or the caller was dropped, the messages are reserved
//! under tags that only this receiver knows. The next call claims them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::cmd;
use tokio::sync::Mutex;

use super::{commands, connection::Connection, lease::Lease, names, script::Script};
use crate::broker::{BrokerError, Delivery, DeliveryTag};

/// Duration of a wait, which is the latency of messages that cannot be waited for.
const WAIT: Duration = Duration::from_millis(100);

/// Maximum number of messages taken in one step: Redis limits the number of values that a script passes to a
/// command.
const MAX_MESSAGES: usize = 1000;

pub(super) struct Receiver {
    connection: Connection,
    /// Locked while a receive is in progress: the next free tag is known only after the previous script has
    /// answered.
    tags: Mutex<Tags>,
    /// Rotates the order of the queues, so that a full queue does not starve the others.
    rotation: AtomicUsize,
}

#[derive(Default)]
struct Tags {
    next: u64,
    /// Number of tags before `next` that were passed to a script whose answer has not arrived.
    unanswered: u64,
}

impl Receiver {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            tags: Mutex::default(),
            rotation: AtomicUsize::new(0),
        }
    }

    pub(super) async fn receive(
        &self,
        script: &Script,
        instance: &str,
        (lease, lease_time): (&Lease, Duration),
        queues: &[String],
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        if queues.is_empty() || max == 0 {
            return Ok(Vec::new());
        }
        let mut tags = self.tags.lock().await;
        let claimed = self.claim(&mut tags, instance).await?;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
        let mut queues: Vec<&str> = queues.iter().map(String::as_str).collect();
        let first = self.rotation.fetch_add(1, Ordering::Relaxed) % queues.len();
        queues.rotate_left(first);
        let take = TakeRequest {
            script,
            instance,
            lease,
            lease_time,
            queues: &queues,
            max: max.min(MAX_MESSAGES),
        };
        let taken = self.take(&mut tags, &take).await?;
        if !taken.is_empty() {
            return Ok(taken);
        }
        self.wait(queues[0]).await?;
        self.take(&mut tags, &take).await
    }

    async fn wait(&self, queue: &str) -> Result<(), BrokerError> {
        let mut wait = cmd("BLMOVE");
        wait.arg(queue)
            .arg(queue)
            .arg("RIGHT")
            .arg("RIGHT")
            .arg(WAIT.as_secs_f64());
        let woken: Result<redis::Value, _> = self.connection.command(commands::BLMOVE, &wait).await;
        woken.map(|_| ())
    }

    async fn take(&self, tags: &mut Tags, take: &TakeRequest<'_>) -> Result<Vec<Delivery>, BrokerError> {
        let mut invocation = take.script.prepare_invoke();
        invocation
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::LEASES)
            .arg(take.max)
            .arg(take.instance)
            .arg(tags.next)
            .arg(take.lease_time.as_secs_f64());
        let mut sources = Vec::with_capacity(take.queues.len() * names::STEPS.len());
        for step in names::STEPS {
            for queue in take.queues {
                invocation
                    .key(names::list(queue, step))
                    .arg(names::reservation_tail(queue));
                sources.push(*queue);
            }
        }
        let first = tags.next;
        tags.next += take.max as u64;
        tags.unanswered = take.max as u64;
        let was_held = take.lease.is_held();
        let (origins, messages, added): (Vec<usize>, Vec<Vec<u8>>, bool) =
            self.connection.script(&invocation).await?;
        tags.unanswered = 0;
        if !messages.is_empty() {
            take.lease.set(was_held, added);
        }
        // Unused tags are available to the next call.
        tags.next = first + messages.len() as u64;
        let deliveries = origins
            .into_iter()
            .zip(messages)
            .zip(first..)
            .map(|((origin, raw), number)| Delivery {
                tag: tag(take.instance, number),
                queue: sources
                    .get(origin.wrapping_sub(1))
                    .copied()
                    .unwrap_or_default()
                    .to_owned(),
                raw,
            });
        Ok(deliveries.collect())
    }

    /// Returns the messages that an earlier call reserved without receiving the answer.
    async fn claim(&self, tags: &mut Tags, instance: &str) -> Result<Vec<Delivery>, BrokerError> {
        if tags.unanswered == 0 {
            return Ok(Vec::new());
        }
        let lost: Vec<DeliveryTag> = (tags.next - tags.unanswered..tags.next)
            .map(|number| tag(instance, number))
            .collect();
        let mut get = cmd("HMGET");
        get.arg(names::UNACKED);
        for tag in &lost {
            get.arg(tag.as_str());
        }
        let reservations: Vec<Option<Vec<u8>>> = self.connection.command(commands::HMGET, &get).await?;
        tags.unanswered = 0;
        Ok(lost
            .into_iter()
            .zip(reservations)
            .filter_map(|(tag, reservation)| {
                let (raw, queue) = super::restore::reserved(&reservation?)?;
                Some(Delivery { tag, queue, raw })
            })
            .collect())
    }
}

struct TakeRequest<'a> {
    script: &'a Script,
    instance: &'a str,
    lease: &'a Lease,
    lease_time: Duration,
    queues: &'a [&'a str],
    max: usize,
}

fn tag(instance: &str, number: u64) -> DeliveryTag {
    // Fixed width, so that deliveries of the same second sort in order in the index.
    DeliveryTag(format!("{instance}/{number:012}"))
}
