//! Taking messages. A script pops and reserves in one step, so there is no moment at which a message is in nobody's
//! hands.
//!
//! Waiting must not pop: `BRPOP` would take a message out before it is reserved. Instead this waits with
//! `BLMOVE queue queue RIGHT RIGHT`, which moves the oldest message onto its own place: it returns as soon as there
//! is one and changes nothing. Only the list of priorities 0 to 2 of one queue can be waited for that way; the other
//! lists are looked at whenever the wait ends, at the latest after [`WAIT`].
//!
//! If an answer is lost, with the connection or because the caller went away, the messages are reserved under tags
//! that only this receiver knows. They are claimed at the next call.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::{Script, cmd};
use tokio::sync::Mutex;

use super::{commands, connection::Connection, lease::Lease, names};
use crate::broker::{BrokerError, Delivery, DeliveryTag};

/// How long an idle receive waits: the latency of messages it cannot wait for.
const WAIT: Duration = Duration::from_millis(100);

/// Redis limits how many values a script can pass to a command.
const MOST: usize = 1000;

pub(super) struct Receiver {
    connection: Connection,
    /// Held while a receive is in progress: one script's tags are known only when the one before has answered.
    tags: Mutex<Tags>,
    /// Which queue is first this time, so that a full queue does not starve the others.
    turn: AtomicUsize,
}

#[derive(Default)]
struct Tags {
    next: u64,
    /// How many tags before `next` were handed to a script whose answer has not arrived.
    unanswered: u64,
}

impl Receiver {
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            tags: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    pub async fn receive(
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
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % queues.len();
        queues.rotate_left(first);
        let take = Take {
            script,
            instance,
            lease,
            lease_time,
            queues: &queues,
            max: max.min(MOST),
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

    async fn take(&self, tags: &mut Tags, take: &Take<'_>) -> Result<Vec<Delivery>, BrokerError> {
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
        // A tag that no message got can be given to the next one.
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

    /// What an earlier call reserved without hearing of it.
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

struct Take<'a> {
    script: &'a Script,
    instance: &'a str,
    lease: &'a Lease,
    lease_time: Duration,
    queues: &'a [&'a str],
    max: usize,
}

fn tag(instance: &str, number: u64) -> DeliveryTag {
    // Of equal width, so that deliveries of the same second are in order in the index.
    DeliveryTag(format!("{instance}/{number:012}"))
}
