//! Renews the worker's lease and its reservations, and detects when the server has lost its data: after
//! `FLUSHALL`, a restart without data, or a fail-over to a replica that lagged behind. The data is lost if a
//! lease that this handle held does not exist; the worker then reserves its deliveries again.

use std::sync::atomic::Ordering;

use super::{
    RedisBroker,
    bindings::Bindings,
    commands, names,
    script::{Invocation, scripts},
};
use crate::broker::{BrokerError, Delivery, DeliveryTag, Renewal};

/// Maximum number of deliveries that one script reserves.
const RESERVE_BATCH: usize = 200;
/// Maximum number of deliveries that one script renews; more would block the server for long.
const RENEW_BATCH: usize = 1000;

impl RedisBroker {
    pub(super) async fn renew_lease(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        let mut taken = Vec::new();
        let mut batches = deliveries.chunks(RENEW_BATCH);
        let mut batch = batches.next().unwrap_or_default();
        loop {
            let mut script = Invocation::new(&RENEW);
            script
                .key(names::LEASES)
                .key(names::UNACKED_INDEX)
                .arg(&self.instance)
                .arg(self.config.lease.as_secs_f64());
            for tag in batch {
                script.arg(tag.as_str());
            }
            let was_held = self.lease.is_held();
            let (added, missing): (bool, Vec<usize>) = self.commands.script(&script).await?;
            self.lease.set(was_held, added);
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
        if self.lease.renewed() {
            // The bindings are lost too, so they must be declared again.
            *self.bindings.lock() = Bindings::default();
            return Ok(Renewal::Lost);
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
        let own = (names::LEASES, &self.instance);
        let known: Option<f64> = self.commands.command(commands::ZSCORE, own).await?;
        let lost = known.is_none() && self.lease.is_held() || self.lease.lost.load(Ordering::Acquire);
        if lost {
            self.reserve_again(std::slice::from_ref(delivery)).await?;
        }
        Ok(lost)
    }

    /// Reserves the deliveries that the server has lost, and leaves existing reservations unchanged.
    pub(super) async fn reserve_again(&self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        for batch in deliveries.chunks(RESERVE_BATCH) {
            let mut script = Invocation::new(&RESERVE);
            script.key(names::UNACKED_INDEX).key(names::UNACKED);
            for delivery in batch {
                script
                    .arg(delivery.tag.as_str())
                    .arg(&delivery.raw)
                    .arg(names::reservation_tail(&delivery.queue));
            }
            self.commands.script::<()>(&script).await?;
        }
        Ok(())
    }
}

scripts! {
    /// Renews the lease and the reservations of deliveries. The score of the lease always changes, because
    /// other workers judge by the change.
    ///
    /// KEYS: leases, unacked_index. ARGV: instance, lease seconds, then the tags. Returns whether the lease was
    /// added, and the positions of the tags that are not reserved. The first write frees memory, if anything: a
    /// server without free memory accepts the writes after it.
    RENEW = r"
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local before = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
local lease = string.format('%.6f', now + tonumber(ARGV[2]))
if before == tonumber(lease) then lease = string.format('%.6f', lease + 0.000001) end
redis.call('ZREM', KEYS[1], '')
redis.call('ZADD', KEYS[1], lease, ARGV[1])
local missing = {}
if #ARGV > 2 then
    local score = string.format('%d', math.ceil(now))
    local renewed = {}
    for i, known in ipairs(redis.call('ZMSCORE', KEYS[2], unpack(ARGV, 3))) do
        if known then
            renewed[#renewed + 1] = score
            renewed[#renewed + 1] = ARGV[i + 2]
        else
            missing[#missing + 1] = i - 1
        end
    end
    if #renewed > 0 then redis.call('ZADD', KEYS[2], 'XX', unpack(renewed)) end
end
return {before and 0 or 1, missing}
";

    /// Reserves deliveries.
    ///
    /// KEYS: unacked_index, unacked. ARGV: for each delivery its tag, the message, the tail of its
    /// reservation. As in receiving, a message that is clearly not JSON is reserved as a JSON string.
    RESERVE = r"
local time = redis.call('TIME')
local now = string.format('%d', time[1] + 1)
for i = 1, #ARGV, 3 do
    local body = ARGV[i + 1]
    if string.sub(body, 1, 1) ~= '{' or string.sub(body, -1) ~= '}' then body = cjson.encode(body) end
    redis.call('HSETNX', KEYS[2], ARGV[i], '[' .. body .. ARGV[i + 2])
    redis.call('ZADD', KEYS[1], now, ARGV[i])
end
";
}
