//! Renews the worker's lease and its reservations, and detects when the server has lost its data: after
//! `FLUSHALL`, a restart without data, or a fail-over to a replica that lagged behind. The data is lost if a
//! lease that this handle held does not exist; the worker then reserves its deliveries again.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use redis::pipe;

use super::{
    RedisBroker,
    bindings::Bindings,
    chord_scripts, commands,
    counter::Counter,
    names, restore,
    script::{Invocation, scripts},
    scripts,
    settling::{self, Settling, message_id},
    written::{Entry, Rewritten, Write},
};
use crate::{
    broker::{BrokerError, Delivery, DeliveryTag, Recovery, Renewal},
    message::{mark_redelivered, priority},
};

/// Maximum number of concurrent writes during a recovery.
const REWRITES: usize = 64;
/// Maximum number of deliveries that one script reserves.
const RESERVE_BATCH: usize = 200;
/// Number of bytes after which a script reserves, or a request reads, no more deliveries.
const BATCH_BYTES: usize = 1 << 20;
/// Maximum number of settled deliveries that a search finds, and bounds of the times of their last renewals: age, and
/// seconds in the future, in case the clock was changed.
const MAX_SETTLED: usize = 1_000_000;
const MAX_AGE: Duration = Duration::from_secs(86_400);
const MAX_AHEAD: f64 = 600.0;
/// Maximum number of deliveries that one script renews; more would block the server for long.
const RENEW_BATCH: usize = 1000;

impl RedisBroker {
    pub(super) async fn renew_lease(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        let counter = self.writer.counter().await?;
        let server = &counter.server;
        let next_tag = self.lease.next_tag.load(Ordering::Acquire);
        let before = self.lease.confirmed();
        let (known, confirmed) = before.unwrap_or_else(|| (Arc::clone(server), 0));
        let mut taken = Vec::new();
        let mut batches = deliveries.chunks(RENEW_BATCH);
        let mut batch = batches.next().unwrap_or_default();
        let mut last = 0;
        let mut is_older = false;
        loop {
            let mut script = Invocation::new(&RENEW);
            script
                .key(&self.names().leases)
                .key(&self.names().unacked_index)
                .key(&*counter.key)
                .arg(&self.instance)
                .arg(self.config.lease.as_secs_f64())
                .arg(&**server)
                .arg(&*known);
            for tag in batch {
                script.arg(tag.as_str());
            }
            let was_held = self.lease.is_held();
            let (added, number, kept, missing): (bool, u64, u64, Vec<usize>) =
                self.commands.script(&script).await?;
            self.lease.set(was_held, added);
            if known != *server {
                is_older |= kept < confirmed;
            } else if number <= confirmed {
                // Older data from a server that does not report its identity.
                is_older = true;
                self.lease.set_rewound(number - 1);
            }
            last = number.max(last);
            taken.extend(
                missing
                    .into_iter()
                    .filter_map(|position| batch.get(position).cloned()),
            );
            match batches.next() {
                Some(next) => batch = next,
                None => break,
            }
        }
        if self.lease.renewed(is_older || self.lease.rewound().is_some()) {
            // The bindings are lost too, so they must be declared again.
            *self.bindings.lock() = Bindings::default();
            return Ok(Renewal::Lost);
        }
        self.lease.known_tags.store(next_tag, Ordering::Release);
        if known == *server && !is_older {
            self.lease.confirm(server, last);
        } else {
            // Another run of the server with all of the data, or a worker that was suspended for long.
            self.lease.adopt(server, last);
        }
        Ok(if taken.is_empty() {
            Renewal::Kept
        } else {
            Renewal::Taken(taken)
        })
    }

    /// Reserves a delivery again if the server has lost this handle's reservations, even if no renewal has
    /// detected the loss yet. Returns whether they were lost.
    pub(super) async fn reserve_if_lost(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let counter = self.writer.counter().await?;
        let before = self.lease.confirmed();
        let (known, confirmed) = before.unwrap_or_else(|| (Arc::clone(&counter.server), 0));
        let mut pipeline = pipe();
        pipeline
            .cmd("ZSCORE")
            .arg(&self.names().leases)
            .arg(&self.instance);
        pipeline.cmd("HGET").arg(&*counter.key).arg(&*known);
        let (lease, kept): (Option<f64>, Option<u64>) =
            self.commands.pipeline(commands::KEPT, &pipeline).await?;
        let is_older = kept.unwrap_or_default() < confirmed;
        let lost =
            lease.is_none() && self.lease.is_held() || self.lease.lost.load(Ordering::Acquire) || is_older;
        if lost {
            self.reserve_again(std::slice::from_ref(delivery), &counter)
                .await?;
        }
        Ok(lost)
    }

    /// Writes again what the server has lost: this handle's recent writes, the early acknowledgements of
    /// running tasks, and the reservations of `deliveries`.
    pub(super) async fn recover(
        &self,
        deliveries: &[Delivery],
        acknowledged: &[DeliveryTag],
    ) -> Result<Recovery, BrokerError> {
        let counter = self.writer.counter().await?;
        let kept: HashMap<String, u64> = self.commands.command(commands::HGETALL, &*counter.key).await?;
        // Without the lease, the server has lost everything, in the same run.
        let all = self.lease.lost.load(Ordering::Acquire);
        let rewound = self.lease.rewound();
        let postponed = self.writer.written.lock().postponed();
        let lost = self.writer.written.lock().lost(|entry| {
            let kept = if entry.server == counter.server {
                rewound.unwrap_or(u64::MAX)
            } else {
                kept.get(&*entry.server).copied().unwrap_or_default()
            };
            all || entry.number > kept
        });
        // Messages that this worker has received are either reserved again or settled.
        let mut received = self.writer.written.lock().settled();
        received.extend(deliveries.iter().filter_map(|delivery| message_id(&delivery.raw)));
        // A message that was sent and then postponed, such as a retry, is sent by its postponement.
        let sent = received.union(&postponed).copied().collect();
        let mut rewritten = Vec::new();
        let mut failure = None;
        let writes = lost.into_iter().map(|entry| {
            let is_postponement = matches!(*entry.write, Write::Postponement { .. });
            self.rewrite(&counter, entry, if is_postponement { &received } else { &sent })
        });
        let mut writes = pin!(stream::iter(writes).buffered(REWRITES));
        while let Some(written) = writes.next().await {
            match written {
                Ok(entry) => rewritten.push(entry),
                Err(error) => failure = Some(error),
            }
        }
        self.writer
            .written
            .lock()
            .replace(&rewritten, self.config.rewrite);
        if let Some(error) = failure {
            return Err(error);
        }
        for tag in acknowledged {
            let script = chord_scripts::begin(self.names(), tag, &counter, true);
            self.commands.script::<i64>(&script).await?;
        }
        self.restore_settled(deliveries).await?;
        let (reserved, number) = self.reserve_again(deliveries, &counter).await?;
        self.lease.adopt(&counter.server, number);
        self.lease.clear_lost();
        Ok(Recovery {
            reserved,
            rewritten: rewritten
                .iter()
                .filter(|(_, number)| number.is_some())
                .map(|(entry, _)| entry.write.count())
                .sum(),
        })
    }

    /// Returns deliveries to their queues that this worker has settled but older data contains, and that it
    /// does not remember: they would stay reserved as long as the worker lives.
    async fn restore_settled(&self, held: &[Delivery]) -> Result<(), BrokerError> {
        let held: HashSet<&str> = held.iter().map(|delivery| delivery.tag.as_str()).collect();
        let known = self.tag(self.lease.known_tags.load(Ordering::Acquire)).0;
        let now = self.server_time().await?;
        let searched = self.config.visibility_timeout.min(MAX_AGE).as_secs_f64();
        let mut settled = self
            .reserved_by(&[&self.instance], now - searched, now + MAX_AHEAD, MAX_SETTLED)
            .await?;
        // Tags of one instance have the same length, so they are ordered by number.
        settled.retain(|tag| tag.0 < known && !held.contains(tag.as_str()));
        let mut done = 0;
        while done < settled.len() {
            let rest = &settled[done..];
            let part = self.reservations(&self.commands, rest, BATCH_BYTES).await?;
            for (tag, reservation) in rest.iter().zip(part) {
                done += 1;
                let Some((raw, queue)) = reservation.as_deref().and_then(restore::reserved) else {
                    continue;
                };
                let Some(message) = mark_redelivered(&raw) else {
                    continue;
                };
                let mut script = Invocation::on_delivery(&scripts::RESTORE, self.names(), tag);
                script.key(self.names().list(&queue, priority(&raw))).arg(message);
                self.commands.script::<i64>(&script).await?;
            }
        }
        Ok(())
    }

    /// Writes an entry again. Returns it with its new number, or `None` if the write is obsolete.
    async fn rewrite(
        &self,
        counter: &Counter,
        entry: Arc<Entry>,
        received: &HashSet<u128>,
    ) -> Result<Rewritten, BrokerError> {
        let number = match &*entry.write {
            Write::Acks(batch) => self.settle_again(&batch.settlings(), counter, received).await?,
            Write::Settlings(settlings) => self.settle_again(settlings, counter, received).await?,
            Write::Postponement { settling, .. } => {
                let settling = std::slice::from_ref(settling);
                self.settle_again(settling, counter, received).await?
            }
            Write::Part(part) => {
                let reply: Vec<redis::Value> = self
                    .commands
                    .script(&part.script(self.names(), counter, true))
                    .await?;
                match reply.get(1) {
                    Some(redis::Value::Int(number)) => *number,
                    _ => 0,
                }
            }
        };
        let number = u64::try_from(number).ok();
        Ok((entry, number.map(|number| (Arc::clone(&counter.server), number))))
    }

    /// Returns the number of the last write.
    async fn settle_again(
        &self,
        settlings: &[Settling],
        counter: &Counter,
        received: &HashSet<u128>,
    ) -> Result<i64, BrokerError> {
        let mut last = settling::NOT_HELD;
        for settling in settlings {
            let script = settling.script(self.names(), counter, Some(received));
            let number: i64 = self.commands.script(&script).await?;
            last = last.max(number);
        }
        Ok(last)
    }

    /// Reserves the deliveries that the server has lost, and leaves existing reservations unchanged. Returns
    /// the number of new reservations and the number of the write.
    async fn reserve_again(
        &self,
        deliveries: &[Delivery],
        counter: &Counter,
    ) -> Result<(usize, u64), BrokerError> {
        let mut reserved = 0;
        let mut rest = deliveries;
        loop {
            let (batch, next) = Delivery::split_batch(rest, RESERVE_BATCH, BATCH_BYTES);
            rest = next;
            let mut script = Invocation::new(&RESERVE);
            script
                .key(&self.names().unacked_index)
                .key(&self.names().unacked)
                .key(&*counter.key)
                .arg(&*counter.server);
            for delivery in batch {
                script
                    .arg(delivery.tag.as_str())
                    .arg(&delivery.raw)
                    .arg(names::reservation_tail(&delivery.queue));
            }
            let (new, number): (usize, u64) = self.commands.script(&script).await?;
            reserved += new;
            if rest.is_empty() {
                return Ok((reserved, number));
            }
        }
    }
}

scripts! {
    /// Renews the lease and the reservations of deliveries. The score of the lease always changes, because
    /// other workers judge by the change.
    ///
    /// KEYS: leases, unacked_index, writes. ARGV: instance, lease seconds, identity of the server and of the
    /// server that holds the deliveries, then the tags. Returns whether the lease was added, the number of
    /// the write, the number of the last write that the data contains of the server that holds the
    /// deliveries, and the positions of the tags that are not reserved.
    ///
    /// The first write frees memory, if anything: a server without free memory accepts the writes after it.
    RENEW = r"
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local before = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
local lease = string.format('%.6f', now + tonumber(ARGV[2]))
if before == tonumber(lease) then lease = string.format('%.6f', lease + 0.000001) end
redis.call('ZREM', KEYS[1], '')
redis.call('ZADD', KEYS[1], lease, ARGV[1])
local missing = {}
if #ARGV > 4 then
    local score = string.format('%d', math.ceil(now))
    local renewed = {}
    for i, known in ipairs(redis.call('ZMSCORE', KEYS[2], unpack(ARGV, 5))) do
        if known then
            renewed[#renewed + 1] = score
            renewed[#renewed + 1] = ARGV[i + 4]
        else
            missing[#missing + 1] = i - 1
        end
    end
    if #renewed > 0 then redis.call('ZADD', KEYS[2], 'XX', unpack(renewed)) end
end
local kept = tonumber(redis.call('HGET', KEYS[3], ARGV[4]) or 0)
local number = redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
redis.call('EXPIRE', KEYS[3], 86400)
return {before and 0 or 1, number, kept, missing}
";

    /// Reserves deliveries.
    ///
    /// KEYS: unacked_index, unacked, writes. ARGV: identity of the server, then for each delivery its tag,
    /// the message, the tail of its reservation. Returns the number of new reservations and the number of the
    /// write. As in receiving, a message that is clearly not JSON is reserved as a JSON string.
    RESERVE = r"
local time = redis.call('TIME')
local now = string.format('%d', time[1] + 1)
local reserved = 0
for i = 2, #ARGV, 3 do
    local body = ARGV[i + 1]
    if string.byte(body) ~= 123 or string.byte(body, -1) ~= 125 then body = cjson.encode(body) end
    reserved = reserved + redis.call('HSETNX', KEYS[2], ARGV[i], '[' .. body .. ARGV[i + 2])
    redis.call('ZADD', KEYS[1], now, ARGV[i])
end
return {reserved, redis.call('HINCRBY', KEYS[3], ARGV[1], 1)}
";
}
