//! Receives messages. A script pops and reserves in one step: a message is always either in its queue or
//! reserved.
//!
//! Waiting must not pop: `BRPOP` would remove a message before it is reserved. `BLMOVE queue queue RIGHT
//! RIGHT`, which moves the oldest message to where it already is, returns as soon as there is a message and
//! changes nothing. It can wait for only one list: priorities 0 to 2 of one queue. The other lists are
//! checked when this short wait ends.
//!
//! If the reply is lost because the connection broke or the caller was dropped, the messages are reserved
//! under tags that only this receiver knows. The next call claims them.

use std::{sync::atomic::Ordering, time::Duration};

use super::{RedisBroker, commands, names, restore, script::Invocation, scripts, tags::Tags};
use crate::broker::{BrokerError, Delivery, DeliveryTag};

/// Maximum number of messages taken in one step: Redis limits the number of values that a script passes to a
/// command.
const MAX_MESSAGES: usize = 1000;
/// Duration of one wait, which is also the latency of messages in the lists that the wait does not cover.
const WAIT: Duration = Duration::from_millis(100);

impl RedisBroker {
    pub(super) async fn receive_from(
        &self,
        queues: &[String],
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        if queues.is_empty() || max == 0 {
            return Ok(Vec::new());
        }
        let mut tags = self.tags.lock().await;
        let claimed = self.claim(&mut tags).await?;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
        let mut queues: Vec<&str> = queues.iter().map(String::as_str).collect();
        let first = self.rotation.fetch_add(1, Ordering::Relaxed) % queues.len();
        queues.rotate_left(first);
        let max = max.min(MAX_MESSAGES);
        let taken = self.take(&mut tags, &queues, max).await?;
        if !taken.is_empty() {
            return Ok(taken);
        }
        let list = self.names().list(queues[0], 0);
        let wait = (&list, &list, "RIGHT", "RIGHT", WAIT.as_secs_f64());
        self.receiving
            .command::<redis::Value>(commands::BLMOVE, wait)
            .await?;
        self.take(&mut tags, &queues, max).await
    }

    async fn take(&self, tags: &mut Tags, queues: &[&str], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let counter = self.writer.counter_on(&self.receiving).await?;
        let mut invocation = Invocation::new(&scripts::RECEIVE);
        invocation
            .key(&self.names().unacked_index)
            .key(&self.names().unacked)
            .key(&self.names().leases)
            .key(&*counter.key)
            .arg(max)
            .arg(&self.instance)
            .arg(tags.next)
            .arg(self.config.lease.as_secs_f64())
            .arg(&*counter.server);
        // Queue of each list; the script counts from 1.
        let mut sources = vec![""];
        for step in &self.names().steps {
            for queue in queues {
                invocation
                    .key(self.names().list(queue, *step))
                    .arg(names::reservation_tail(queue));
                sources.push(*queue);
            }
        }
        let first = tags.next;
        tags.next += max as u64;
        self.lease.next_tag.store(tags.next, Ordering::Release);
        tags.unanswered = max as u64;
        let was_held = self.lease.is_held();
        let (origins, messages, added, number): (Vec<usize>, Vec<Vec<u8>>, bool, u64) =
            self.receiving.script(&invocation).await?;
        tags.unanswered = 0;
        if !messages.is_empty() {
            self.lease.set(was_held, added);
            self.lease.confirm(&counter.server, number);
        }
        // Unused tags are available to the next call.
        tags.next = first + messages.len() as u64;
        let deliveries = origins
            .into_iter()
            .zip(messages)
            .zip(first..)
            .map(|((origin, raw), number)| Delivery {
                tag: self.tag(number),
                queue: (*sources.get(origin).unwrap_or(&"")).to_owned(),
                raw,
            });
        Ok(deliveries.collect())
    }

    /// Returns the messages that an earlier call reserved without receiving the reply.
    async fn claim(&self, tags: &mut Tags) -> Result<Vec<Delivery>, BrokerError> {
        if tags.unanswered == 0 {
            return Ok(Vec::new());
        }
        let lost: Vec<DeliveryTag> = (tags.next - tags.unanswered..tags.next)
            .map(|number| self.tag(number))
            .collect();
        let fields: Vec<&str> = lost.iter().map(DeliveryTag::as_str).collect();
        let args = (&self.names().unacked, fields);
        let reservations: Vec<Option<Vec<u8>>> = self.receiving.command(commands::HMGET, args).await?;
        tags.unanswered = 0;
        Ok(lost
            .into_iter()
            .zip(reservations)
            .filter_map(|(tag, reservation)| {
                let (raw, queue) = restore::reserved(&reservation?)?;
                Some(Delivery { tag, queue, raw })
            })
            .collect())
    }

    pub(super) fn tag(&self, number: u64) -> DeliveryTag {
        // Fixed width: deliveries of the same second are sorted by tag in the index.
        DeliveryTag(format!("{}/{number:012}", self.instance))
    }
}
