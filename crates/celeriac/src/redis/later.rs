//! Postponed deliveries: tasks with a later `eta` wait in Redis, so they cost workers neither memory nor time.
//!
//! A postponed message is reserved in `unacked` under a tag of its own, which no worker renews, and one sorted
//! set for each list contains these tags with the times at which their tasks are due. Receiving takes what is
//! due by the worker's clock. The score in `unacked_index` is chosen so that any Python worker, or Celeriac
//! worker of other queues, restores the message at most 10.5 seconds after its time if nobody has taken it.
//!
//! Postponing is remembered like a settlement that sends the message to its queue, so the message survives if
//! the server returns with older data.

use redis::pipe;

use super::{
    RedisBroker, commands, names, restore,
    script::{Invocation, scripts},
    settling::Settling,
    written::Write,
};
use crate::{
    broker::{BrokerError, Delivery, DeliveryTag},
    message::Message,
};

/// Maximum number of messages that one script moves, and number of bytes after which it moves no more.
const MAX_MOVED: usize = 1000;
const MAX_MOVED_BYTES: usize = 8 << 20;
/// Number of bytes after which a query shows no more messages.
const MAX_SHOWN_BYTES: usize = 1 << 20;

impl RedisBroker {
    pub(super) async fn postpone_all(
        &self,
        deliveries: &[(&Delivery, &Message)],
    ) -> Result<Vec<bool>, BrokerError> {
        let counter = self.writer.counter().await?;
        let mut script = Invocation::new(&POSTPONE);
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(&*counter.key)
            .key(names::LATER_LISTS)
            .arg(&*counter.server)
            .arg(self.config.visibility_timeout.as_secs_f64());
        for (delivery, message) in deliveries {
            let list = names::list(&delivery.queue, message.properties.priority);
            let eta = message.headers.eta.unwrap_or_default().as_microsecond() as f64 / 1e6;
            script.key(names::later(&list));
            script
                .arg(delivery.tag.as_str())
                .arg(names::later_tag(&message.headers.id))
                .arg(format!("{eta:.6}"))
                .arg(list);
        }
        let (postponed, number): (Vec<bool>, u64) = self.commands.script(&script).await?;
        let kept = deliveries
            .iter()
            .zip(&postponed)
            .filter(|(_, postponed)| **postponed);
        let writes = kept.filter_map(|((delivery, message), _)| {
            // Without the id of the message, which is not settled.
            let mut settling = Settling::new(&delivery.tag, None, self.result_seconds());
            let raw = String::from_utf8(delivery.raw.clone()).ok()?;
            settling.add_message(&delivery.queue, message.properties.priority, raw);
            Some(Write::Settling(settling))
        });
        self.writer.remember(&counter, number, writes);
        Ok(postponed)
    }

    /// Returns up to `max` postponed deliveries from the queues, the next one first.
    pub(super) async fn next_postponed(
        &self,
        queues: &[String],
        max: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut pipeline = pipe();
        for queue in queues {
            for step in names::STEPS {
                let later = names::later(&names::list(queue, step));
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
            script.key(names::UNACKED_INDEX).key(names::UNACKED);
            for list in &lists {
                script.key(names::later(list)).key(list);
            }
            for tag in tags {
                script.arg(tag.as_str());
            }
            self.commands.script::<()>(&script).await?;
        }
        Ok(())
    }

    /// Returns all postponed messages to the heads of their queues, unless another worker is alive, and adds
    /// their number to `returned`. A worker that leaves ends its lease first.
    pub(super) async fn return_all_postponed(
        &self,
        is_leaving: bool,
        returned: &mut usize,
    ) -> Result<(), BrokerError> {
        if is_leaving {
            let lease = (names::LEASES, &self.instance);
            self.commands.command::<()>(commands::ZREM, lease).await?;
        }
        for list in self.later_lists().await? {
            loop {
                let mut script = Invocation::new(&RETURN_POSTPONED);
                script
                    .key(names::UNACKED_INDEX)
                    .key(names::UNACKED)
                    .key(names::LEASES)
                    .key(names::LATER_LISTS)
                    .key(names::later(&list))
                    .key(&list)
                    .arg(&self.instance)
                    .arg(MAX_MOVED)
                    .arg(MAX_MOVED_BYTES)
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

    async fn later_lists(&self) -> Result<Vec<String>, BrokerError> {
        self.commands
            .command(commands::SMEMBERS, names::LATER_LISTS)
            .await
    }
}

/// Function that moves a postponed message to the head of its list. A reservation is
/// `[message, "", "<queue>"]`, and the queue contains no plain quotation mark.
const MOVE: &str = r#"
local function move(tag, list)
    local reservation = redis.call('HGET', KEYS[2], tag)
    redis.call('HDEL', KEYS[2], tag)
    redis.call('ZREM', KEYS[1], tag)
    if not reservation then return 0 end
    redis.call('RPUSH', list, string.match(reservation, '^%[(.*), "", ".*"%]$'))
    return #reservation
end
"#;

scripts! {
    /// Postpones deliveries.
    ///
    /// KEYS: unacked_index, unacked, writes, lists, then for each delivery the postponed tags of its list. ARGV:
    /// identity of the server, visibility timeout, then for each delivery its tag, its tag when postponed, the
    /// time at which it is due, its list. Returns whether each is postponed, also by an earlier attempt, and the
    /// number of the write.
    POSTPONE = r"
local postponed = {}
for i = 1, #KEYS - 4 do
    local arg = i * 4 - 1
    local tag, later_tag, due, later = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], KEYS[4 + i]
    local reservation = redis.call('HGET', KEYS[2], tag)
    if reservation then
        redis.call('HDEL', KEYS[2], tag)
        redis.call('ZREM', KEYS[1], tag)
        if redis.call('HSETNX', KEYS[2], later_tag, reservation) == 0 then
            later_tag = later_tag .. '/' .. tag
            redis.call('HSET', KEYS[2], later_tag, reservation)
        end
        local tens = math.max(math.ceil((due - ARGV[2]) / 10), 0)
        redis.call('ZADD', KEYS[1], string.format('%.1f', tens * 10 + 0.5), later_tag)
        redis.call('ZADD', later, due, later_tag)
        redis.call('SADD', KEYS[4], ARGV[arg + 3])
        postponed[i] = 1
    else
        postponed[i] = redis.call('HEXISTS', KEYS[2], later_tag)
    end
end
return {postponed, redis.call('HINCRBY', KEYS[3], ARGV[1], 1)}
";

    /// Returns postponed messages to their lists.
    ///
    /// KEYS: unacked_index, unacked, then for each list its postponed tags and the list. ARGV: tags.
    RECALL = &[MOVE, r"
for _, tag in ipairs(ARGV) do
    for i = 3, #KEYS, 2 do
        if redis.call('HEXISTS', KEYS[2], tag) == 1 and redis.call('ZREM', KEYS[i], tag) == 1 then
            move(tag, KEYS[i + 1])
        end
    end
end
"].concat();

    /// Returns postponed messages to their list, unless another worker is alive. The last ones first, because
    /// the first one must end up at the head.
    ///
    /// KEYS: unacked_index, unacked, leases, lists, postponed tags, list. ARGV: instance, maximum number of
    /// messages, bytes after which no more messages are returned, list. Returns the number of messages, and whether
    /// there are no more to return.
    RETURN_POSTPONED = &[MOVE, r"
local now = redis.call('TIME')[1]
local alive = redis.call('ZCOUNT', KEYS[3], now, '+inf')
local own = redis.call('ZSCORE', KEYS[3], ARGV[1])
if own and tonumber(own) >= tonumber(now) then alive = alive - 1 end
if alive > 0 then return {0, 1} end
local bytes = tonumber(ARGV[3])
local tags = redis.call('ZRANGE', KEYS[5], -ARGV[2], -1)
local moved = 0
for i = #tags, 1, -1 do
    if bytes <= 0 then return {moved, 0} end
    bytes = bytes - move(tags[i], KEYS[6])
    redis.call('ZREM', KEYS[5], tags[i])
    moved = moved + 1
end
if redis.call('EXISTS', KEYS[5]) == 1 then return {moved, 0} end
redis.call('SREM', KEYS[4], ARGV[4])
return {moved, 1}
"].concat();
}
