//! Renews the worker's lease and its reservations, and detects when the server has lost its data: after
//! `FLUSHALL`, a restart without data, or a fail-over to a replica that lagged behind. The data is lost if a
//! lease that this handle held does not exist; the worker then reserves its deliveries again.

use std::sync::atomic::Ordering;

use redis::pipe;

use super::{
    RedisBroker,
    bindings::Bindings,
    commands, names, restore,
    script::{Invocation, scripts},
};
use crate::broker::{BrokerError, Delivery, DeliveryTag, Renewal};

/// Maximum number of deliveries that one script reserves.
const RESERVE_BATCH: usize = 200;
/// Maximum number of deliveries that one command renews.
const RENEW_BATCH: usize = 1000;
/// Time without renewal after which a missing lease does not count as lost: other workers have removed it and
/// restored the messages.
const MAX_SUSPENSION_SECONDS: f64 = restore::FORGET_LEASE_SECONDS / 2.0;

impl RedisBroker {
    pub(super) async fn renew_lease(&self, deliveries: &[DeliveryTag]) -> Result<Renewal, BrokerError> {
        let now = self.server_time().await?;
        let mut pipeline = pipe();
        pipeline
            .cmd("ZADD")
            .arg(names::LEASES)
            .arg(now + self.config.lease.as_secs_f64())
            .arg(&self.instance);
        // In batches, because a long command blocks the server.
        for deliveries in deliveries.chunks(RENEW_BATCH) {
            let index = pipeline.cmd("ZADD").arg(names::UNACKED_INDEX).arg("XX");
            for tag in deliveries {
                index.arg(now.ceil()).arg(tag.as_str());
            }
            index.ignore();
        }
        let lease = &self.lease;
        let was_held = lease.is_held();
        let (added,): (u64,) = self.commands.pipeline(commands::RENEW, &pipeline).await?;
        lease.set(was_held, added > 0);
        let before = lease.renewed.lock().replace(now);
        if before.is_some_and(|before| now - before > MAX_SUSPENSION_SECONDS) {
            lease.clear_lost();
        }
        if !lease.lost.load(Ordering::Acquire) {
            return Ok(Renewal::Kept);
        }
        // The bindings are lost too, so they must be declared again.
        *self.bindings.lock() = Bindings::default();
        Ok(Renewal::Lost)
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
