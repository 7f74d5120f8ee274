//! Postponed deliveries: tasks with a future `eta` wait in Redis, so they cost workers neither memory nor time.
//!
//! A postponed message is reserved in `unacked` under a separate tag, which no worker renews. One sorted set for
//! each list contains these tags with the times at which their tasks are due. Workers receive the messages that are
//! due by their own clocks. The score in `unacked_index` is chosen so that any Python worker, or a Celeriac worker
//! of other queues, restores the message at most 10.5 seconds after its `eta` if no worker has received it.
//!
//! A postponement is remembered like a settlement that sends the message to its queue, so the message survives if
//! the server returns with older data.

use std::sync::atomic::Ordering;

use redis::pipe;

use super::{
    RedisBroker, commands,
    destination::Destination,
    names, restore,
    script::{Invocation, scripts},
    scripts::PUT_BACK,
    settling::{Settling, message_id},
    written::Write,
};
use crate::{
    broker::{BrokerError, Delivery, DeliveryTag},
    message::Message,
};

/// Maximum number of messages that one script moves, and number of bytes after which it moves no more.
const MAX_MOVED: usize = 1000;
const MAX_MOVED_BYTES: usize = 8 << 20;
/// Number of bytes after which a query returns no more messages.
const MAX_SHOWN_BYTES: usize = 1 << 20;

impl RedisBroker {
    /// Postpones deliveries. Returns for each delivery whether it was postponed.
    pub(super) async fn postpone_all(
        &self,
        deliveries: &[(&Delivery, &Message)],
    ) -> Result<Vec<bool>, BrokerError> {
        let mut postponed = self.try_postponing(deliveries).await?;
        let missing = deliveries.iter().zip(&mut postponed);
        for ((delivery, message), postponed) in missing.filter(|(_, postponed)| !**postponed) {
            if self.reserve_if_lost(delivery).await? {
                *postponed = self.try_postponing(&[(delivery, message)]).await?.contains(&true);
            }
        }
        self.postponed.store(postponed.len(), Ordering::Relaxed);
        Ok(postponed)
    }

    async fn try_postponing(&self, deliveries: &[(&Delivery, &Message)]) -> Result<Vec<bool>, BrokerError> {
        let counter = self.writer.counter().await?;
        let mut script = Invocation::new(&POSTPONE);
        script
            .key(&self.names().unacked_index)
            .key(&self.names().unacked)
            .key(&*counter.key)
            .key(&self.names().later_lists)
            .arg(&*counter.server)
            .arg(self.config.visibility_timeout.as_secs_f64());
        for (delivery, message) in deliveries {
            let list = self.names().list(&delivery.queue, message.properties.priority);
            let eta = message.headers.eta.unwrap_or_default().as_microsecond() as f64 / 1e6;
            script.key(self.names().later(&list));
            script
                .arg(delivery.tag.as_str())
                .arg(names::later_tag(&message.headers.id))
                .arg(format!("{eta:.6}"))
                .arg(list)
                .arg(&delivery.queue);
        }
        let (postponed, number): (Vec<bool>, u64) = self.commands.script(&script).await?;
        let kept = deliveries
            .iter()
            .zip(&postponed)
            .filter(|(_, postponed)| **postponed);
        let writes = kept.filter_map(|((delivery, message), _)| {
            // No message id, because the message is not settled.
            let mut settling = Settling::new(delivery.tag.clone(), None, self.result_seconds());
            let raw = String::from_utf8(delivery.raw.clone()).ok()?;
            let destination = Destination::Queue {
                queue: delivery.queue.clone(),
                priority: message.properties.priority,
            };
            settling.add_message(destination, raw);
            let message = message_id(&delivery.raw);
            Some(Write::Postponement { message, settling })
        });
        self.writer.remember(&counter, number, writes);
        Ok(postponed)
    }

    /// Returns up to `max` postponed deliveries from the queues, earliest first.
    pub(super) async fn next_postponed(
        &self,
        queues: &[String],
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut pipeline = pipe();
        for queue in queues {
            for list in self.names().lists(queue) {
                let later = self.names().later(&list);
                pipeline
                    .cmd("ZRANGE")
                    .arg((later, 0, max.saturating_sub(1), "WITHSCORES"));
            }
        }
        let lists: Vec<Vec<(String, f64)>> = self.commands.pipeline(commands::POSTPONED, &pipeline).await?;
        let mut tags: Vec<(String, f64)> = lists.into_iter().flatten().collect();
        tags.sort_by(|one, other| one.1.total_cmp(&other.1));
        tags.truncate(max);
        let tags = tags.into_iter().map(|(tag, _)| DeliveryTag(tag)).collect();
        self.postponed_with(tags).await
    }

    /// Returns the postponed deliveries of tasks.
    pub(super) async fn postponed_of(&self, task_ids: &[String]) -> Result<Vec<Delivery>, BrokerError> {
        let tags = task_ids.iter().map(|id| DeliveryTag(names::later_tag(id)));
        self.postponed_with(tags.collect()).await
    }

    async fn postponed_with(&self, tags: Vec<DeliveryTag>) -> Result<Vec<Delivery>, BrokerError> {
        if tags.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.reservations(&self.commands, &tags, MAX_SHOWN_BYTES).await?;
        let deliveries = tags.into_iter().zip(found).filter_map(|(tag, reservation)| {
            let (raw, queue) = restore::reserved(&reservation?)?;
            Some(Delivery { tag, queue, raw })
        });
        Ok(deliveries.collect())
    }

    /// Returns the postponed messages of tasks to the heads of their queues.
    pub(super) async fn recall_tasks(&self, task_ids: &[String]) -> Result<(), BrokerError> {
        let tags = task_ids.iter().map(|id| DeliveryTag(names::later_tag(id)));
        self.recall_tags(&tags.collect::<Vec<_>>()).await
    }

    /// Returns postponed messages to the heads of their queues.
    pub(super) async fn recall_tags(&self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        if tags.is_empty() {
            return Ok(());
        }
        let lists = self.later_lists().await?;
        for tags in tags.chunks(MAX_MOVED) {
            let mut script = Invocation::new(&RECALL);
            script
                .key(&self.names().unacked_index)
                .key(&self.names().unacked)
                .arg(MAX_MOVED_BYTES);
            for (list, queue) in &lists {
                script
                    .key(self.names().later(list))
                    .key(list)
                    .arg(names::reservation_tail(queue));
            }
            for tag in tags {
                script.arg(tag.as_str());
            }
            self.commands.script::<()>(&script).await?;
        }
        Ok(())
    }

    /// Returns all postponed messages to the heads of their queues, unless another worker is alive, and adds
    /// their number to `returned`. With `is_leaving`, ends the lease first.
    pub(super) async fn return_all_postponed(
        &self,
        is_leaving: bool,
        returned: &mut usize,
    ) -> Result<(), BrokerError> {
        if is_leaving {
            let lease = (&self.names().leases, &self.instance);
            self.commands.command::<()>(commands::ZREM, lease).await?;
        }
        for (list, queue) in self.later_lists().await? {
            loop {
                let mut script = Invocation::new(&RETURN_POSTPONED);
                script
                    .key(&self.names().unacked_index)
                    .key(&self.names().unacked)
                    .key(self.names().later(&list))
                    .key(&list)
                    .key(&self.names().leases)
                    .key(&self.names().later_lists)
                    .arg(MAX_MOVED_BYTES)
                    .arg(names::reservation_tail(&queue))
                    .arg(&self.instance)
                    .arg(MAX_MOVED)
                    .arg(&list);
                let (moved, is_last): (usize, bool) = self.commands.script(&script).await?;
                *returned += moved;
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns the lists with postponed deliveries, and their queues.
    async fn later_lists(&self) -> Result<Vec<(String, String)>, BrokerError> {
        self.commands
            .command(commands::HGETALL, &self.names().later_lists)
            .await
    }
}

/// Lua function that moves postponed messages to the head of their list, in order, until their sizes exceed
/// `bytes`; `tail` is the end of the list's reservations. Returns the number of tags processed.
const MOVE: &str = r#"
local function move(tags, later, list, tail, bytes)
    local moved, messages = {}, {}
    for i, tag in ipairs(tags) do
        if bytes <= 0 then break end
        local reservation = redis.call('HGET', KEYS[2], tag)
        if reservation then
            bytes = bytes - #reservation
            messages[#messages + 1] = string.sub(reservation, 2, -#tail - 1)
        end
        moved[i] = tag
    end
    if #moved == 0 then return 0 end
    redis.call('HDEL', KEYS[2], unpack(moved))
    redis.call('ZREM', KEYS[1], unpack(moved))
    redis.call('ZREM', later, unpack(moved))
    if #messages > 0 then put_back(list, unpack(messages)) end
    return #moved
end
"#;

scripts! {
    /// Postpones deliveries.
    ///
    /// KEYS: unacked_index, unacked, writes, lists, then for each delivery the postponed tags of its list. ARGV:
    /// identity of the server, visibility timeout, then for each delivery its tag, its tag when postponed, the
    /// time at which it is due, its list and its queue. Returns for each delivery whether it was held and is now
    /// postponed, and the number of the write.
    POSTPONE = r"
local postponed, tags, reservations = {}, {}, {}
for i = 1, #KEYS - 4 do
    local tag = ARGV[i * 5 - 2]
    reservations[i] = redis.call('HGET', KEYS[2], tag)
    tags[i] = tag
end
redis.call('HDEL', KEYS[2], unpack(tags))
redis.call('ZREM', KEYS[1], unpack(tags))
local index, lists = {}, {}
for i, reservation in ipairs(reservations) do
    local tag, due, list, queue = unpack(ARGV, i * 5 - 1, i * 5 + 2)
    if reservation then
        if redis.call('HSETNX', KEYS[2], tag, reservation) == 0 then
            tag = tag .. '/' .. tags[i]
            redis.call('HSET', KEYS[2], tag, reservation)
        end
        local tens = math.max(math.ceil((due - ARGV[2]) / 10), 0)
        index[#index + 1] = string.format('%.1f', tens * 10 + 0.5)
        index[#index + 1] = tag
        redis.call('ZADD', KEYS[4 + i], due, tag)
        if not lists[list] then redis.call('HSET', KEYS[4], list, queue) end
        lists[list] = true
        postponed[i] = 1
    else
        postponed[i] = 0
    end
end
if #index > 0 then redis.call('ZADD', KEYS[1], unpack(index)) end
return {postponed, redis.call('HINCRBY', KEYS[3], ARGV[1], 1)}
";

    /// Returns postponed messages to their lists.
    ///
    /// KEYS: unacked_index, unacked, then for each list its postponed tags and the list. ARGV: bytes after which
    /// no more messages of a list are returned, for each list the tail of its reservations, then the tags.
    RECALL = &[PUT_BACK, MOVE, r"
local lists = (#KEYS - 2) / 2
for i = 1, lists do
    local later, tags = KEYS[i * 2 + 1], {}
    for j, score in ipairs(redis.call('ZMSCORE', later, unpack(ARGV, lists + 2))) do
        if score then tags[#tags + 1] = ARGV[lists + 1 + j] end
    end
    move(tags, later, KEYS[i * 2 + 2], ARGV[i + 1], tonumber(ARGV[1]))
end
"].concat();

    /// Returns postponed messages to their list, unless another worker is alive. Starts with the last messages,
    /// because the first must end up at the head.
    ///
    /// KEYS: unacked_index, unacked, postponed tags, list, leases, lists. ARGV: bytes after which no more
    /// messages are returned, tail of the list's reservations, instance, maximum number of messages, list. Returns
    /// the number of messages, and whether there are no more to return.
    RETURN_POSTPONED = &[PUT_BACK, MOVE, r"
local now = redis.call('TIME')[1]
local alive = redis.call('ZCOUNT', KEYS[5], now, '+inf')
local own = redis.call('ZSCORE', KEYS[5], ARGV[3])
if own and tonumber(own) >= tonumber(now) then alive = alive - 1 end
if alive > 0 then return {0, 1} end
local tags = redis.call('ZRANGE', KEYS[3], 0, ARGV[4] - 1, 'REV')
local moved = move(tags, KEYS[3], KEYS[4], ARGV[2], tonumber(ARGV[1]))
if redis.call('EXISTS', KEYS[3]) == 1 then return {moved, 0} end
redis.call('HDEL', KEYS[6], ARGV[5])
return {moved, 1}
"].concat();
}
