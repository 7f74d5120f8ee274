//! Receives messages. A script pops and reserves in one step: a message is always either in its queue or
//! reserved.
//!
//! Waiting must not pop: `BRPOP` would remove a message before it is reserved. `BLMOVE queue queue RIGHT
//! RIGHT`, which moves the oldest message to where it already is, returns as soon as there is a message and
//! changes nothing. It can wait for only one list: priorities 0 to 2 of one queue. The other lists are
//! checked when this short wait ends.
//!
//! If the reply is lost because the connection broke or the caller was dropped, the messages are reserved
//! under tags that only this receiver knows. The next calls claim them.
//!
//! Requests are limited in bytes, because large messages may take a long time to transfer. After a request without
//! a reply, the next ones are smaller and get more time.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    RedisBroker, commands,
    connection::Connection,
    names, restore,
    script::{Invocation, scripts},
    scripts::RECEIVE,
    tags::Tags,
};
use crate::{
    broker::{BrokerError, Delivery, DeliveryTag},
    system, time,
};

/// Maximum number of messages taken in one step: Redis limits the number of values that a script passes to a
/// command.
const MAX_MESSAGES: usize = 1000;
/// Minimum time until the `eta` of a message that is certain to be postponed.
const UNCERTAIN: Duration = Duration::from_secs(5);
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
        let received = self.claim_or_take(&mut tags, queues, max).await;
        match &received {
            Ok(deliveries) => {
                tags.received(deliveries.iter().map(|delivery| delivery.raw.len()));
                self.receiving.reset_patience();
            }
            // The request may have timed out because its reply was too large.
            Err(_) if tags.unanswered > 0 => {
                tags.request_less();
                self.receiving.be_more_patient();
            }
            Err(_) => {}
        }
        received
    }

    async fn claim_or_take(
        &self,
        tags: &mut Tags,
        queues: &[String],
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let claimed = self.claim(tags).await?;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
        let mut queues: Vec<&str> = queues.iter().map(String::as_str).collect();
        let first = self.rotation.fetch_add(1, Ordering::Relaxed) % queues.len();
        queues.rotate_left(first);
        let max = max.min(MAX_MESSAGES);
        let taken = self.take(tags, &queues, max).await?;
        if !taken.is_empty() {
            return Ok(taken);
        }
        let list = self.names().list(queues[0], 0);
        let wait = (&list, &list, "RIGHT", "RIGHT", WAIT.as_secs_f64());
        self.receiving
            .command::<redis::Value>(commands::BLMOVE, wait)
            .await?;
        self.take(tags, &queues, max).await
    }

    async fn take(&self, tags: &mut Tags, queues: &[&str], max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let counter = self.writer.counter_on(&self.receiving).await?;
        // Messages that will be postponed do not count towards `max`. They are looked for only if there are many.
        let many_later = tags.received > 0 && self.postponed.swap(0, Ordering::Relaxed) * 2 >= tags.received;
        let skipped_from = many_later.then(|| time::format(time::later(system::now(), UNCERTAIN)));
        let skipped_from = skipped_from.unwrap_or_default();
        let mut invocation = Invocation::new(&RECEIVE);
        invocation
            .key(&self.names().unacked_index)
            .key(&self.names().unacked)
            .key(&self.names().leases)
            .key(&*counter.key)
            .arg(max)
            .arg(&self.instance)
            .arg(tags.next)
            .arg(self.config.lease.as_secs_f64())
            .arg(&*counter.server)
            .arg(tags.bytes)
            .arg(format!("{:.6}", system::unix_time()))
            .arg(tags.expected())
            .arg(MAX_MESSAGES)
            .arg(skipped_from);
        // Queue of each list.
        let mut sources = Vec::new();
        let mut later = Vec::new();
        for step in &self.names().steps {
            for queue in queues {
                let list = self.names().list(queue, *step);
                later.push(self.names().later(&list));
                invocation.key(list).arg(names::reservation_tail(queue));
                sources.push(*queue);
            }
        }
        invocation.key(later);
        let first = tags.next;
        let most = if many_later { MAX_MESSAGES } else { max };
        tags.next += most as u64;
        self.lease.next_tag.store(tags.next, Ordering::Release);
        tags.unanswered = most as u64;
        let was_held = self.lease.is_held();
        let (origins, messages, added, number): (Vec<isize>, Vec<Vec<u8>>, bool, u64) =
            self.receiving.script(&invocation).await?;
        tags.unanswered = 0;
        if !messages.is_empty() {
            self.lease.set(was_held, added);
            self.lease.confirm(&counter.server, number);
        }
        // Unused tags are available to the next call.
        tags.next = first + messages.len() as u64;
        let received = origins.into_iter().zip(messages).zip(first..);
        let deliveries = received.filter_map(|((origin, message), number)| {
            // The script counts from 1.
            let queue = *sources.get(origin.unsigned_abs() - 1)?;
            let raw = if origin < 0 {
                restore::reserved(&message)?.0
            } else {
                message
            };
            Some(Delivery {
                tag: self.tag(number),
                queue: queue.to_owned(),
                raw,
            })
        });
        Ok(deliveries.collect())
    }

    /// Returns messages that an earlier call reserved without receiving the reply.
    async fn claim(&self, tags: &mut Tags) -> Result<Vec<Delivery>, BrokerError> {
        while tags.unanswered > 0 {
            let lost: Vec<DeliveryTag> = (tags.next - tags.unanswered..tags.next)
                .map(|number| self.tag(number))
                .collect();
            let reservations = self.reservations(&self.receiving, &lost, tags.bytes).await?;
            tags.unanswered -= reservations.len() as u64;
            let claimed = lost.into_iter().zip(reservations);
            let claimed: Vec<Delivery> = claimed
                .filter_map(|(tag, reservation)| {
                    let (raw, queue) = restore::reserved(&reservation?)?;
                    Some(Delivery { tag, queue, raw })
                })
                .collect();
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
        Ok(Vec::new())
    }

    /// Returns the reservations with the first of these tags, until their sizes exceed `bytes`; at least one.
    pub(super) async fn reservations(
        &self,
        connection: &Connection,
        tags: &[DeliveryTag],
        bytes: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, BrokerError> {
        let mut script = Invocation::new(&RESERVATIONS);
        script.key(&self.names().unacked).arg(bytes);
        for tag in tags {
            script.arg(tag.as_str());
        }
        connection.script(&script).await
    }

    pub(super) fn tag(&self, number: u64) -> DeliveryTag {
        // Fixed width: deliveries of the same second are sorted by tag in the index.
        DeliveryTag(format!("{}/{number:012}", self.instance))
    }
}

scripts! {
    /// Reads reservations until their sizes exceed a limit.
    ///
    /// KEYS: unacked. ARGV: number of bytes, tags. Returns at least one reservation or nil.
    RESERVATIONS = r"
local bytes = tonumber(ARGV[1])
local found = {}
for i = 2, #ARGV do
    if bytes <= 0 then break end
    local reservation = redis.call('HGET', KEYS[1], ARGV[i])
    if reservation then bytes = bytes - #reservation end
    found[i - 1] = reservation
end
return found
";
}
