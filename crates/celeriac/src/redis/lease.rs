//! The lease that says a worker is alive, and what happens when the server has lost it, with everything the worker had
//! reserved: after `FLUSHALL`, a restart without its data, a fail-over to a replica that lagged behind. A lease that
//! this handle had and that has to be added once more is the sign; then the worker's deliveries are reserved again.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use redis::{Script, cmd, pipe};

use super::{commands, config::RedisConfig, connection::Connection, names, restore};
use crate::broker::{BrokerError, Delivery, DeliveryTag, Renewal};

/// Deliveries that one script reserves.
const BATCH: usize = 200;
/// Deliveries that one command renews.
const RENEWED_AT_ONCE: usize = 1000;
/// A worker that was suspended for so long finds its lease forgotten, which is no loss: others have its messages.
const LONG_AGO_SECONDS: f64 = restore::FORGET_LEASE_SECONDS / 2.0;

pub(super) struct Lease {
    /// This handle has had a lease.
    held: AtomicBool,
    vanished: AtomicBool,
    /// The server's time at the last renewal.
    renewed: Mutex<Option<f64>>,
    reserve: Script,
}

impl Lease {
    pub fn new() -> Self {
        Self {
            held: AtomicBool::new(false),
            vanished: AtomicBool::new(false),
            renewed: Mutex::default(),
            reserve: Script::new(RESERVE),
        }
    }

    /// Whether the server has ever confirmed the lease. To be asked before a request that sets it.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// The server has set the lease; `added` when it did not know it. It should have if the lease was held when the
    /// request was sent.
    pub fn set(&self, was_held: bool, added: bool) {
        self.held.store(true, Ordering::Release);
        if was_held && added {
            self.vanished.store(true, Ordering::Release);
        }
    }

    pub async fn renew(
        &self,
        connection: &Connection,
        config: &RedisConfig,
        instance: &str,
        deliveries: &[DeliveryTag],
    ) -> Result<Renewal, BrokerError> {
        let now = restore::server_time(connection).await?;
        let mut pipeline = pipe();
        pipeline
            .cmd("ZADD")
            .arg(names::LEASES)
            .arg(now + config.lease.as_secs_f64())
            .arg(instance);
        // A server does nothing else during a command.
        for deliveries in deliveries.chunks(RENEWED_AT_ONCE) {
            let index = pipeline.cmd("ZADD").arg(names::UNACKED_INDEX).arg("XX");
            for tag in deliveries {
                index.arg(now.ceil()).arg(tag.as_str());
            }
            index.ignore();
        }
        let was_held = self.is_held();
        let (added,): (u64,) = connection.pipeline(commands::RENEW, &pipeline).await?;
        self.set(was_held, added > 0);
        let before = self.renewed().replace(now);
        if before.is_some_and(|before| now - before > LONG_AGO_SECONDS) {
            self.found();
        }
        Ok(if self.vanished.load(Ordering::Acquire) {
            Renewal::Lost
        } else {
            Renewal::Kept
        })
    }

    /// Whether the server has lost what this handle had reserved, which its next renewal would find.
    pub async fn is_lost(&self, connection: &Connection, instance: &str) -> Result<bool, BrokerError> {
        let mut score = cmd("ZSCORE");
        score.arg(names::LEASES).arg(instance);
        let known: Option<f64> = connection.command(commands::ZSCORE, &score).await?;
        let vanished = known.is_none() && self.is_held();
        Ok(vanished || self.vanished.load(Ordering::Acquire))
    }

    /// Everything that had been lost is reserved again.
    pub fn found(&self) {
        self.vanished.store(false, Ordering::Release);
    }

    /// Reserves what the server has lost; what it still has stays as it is.
    pub async fn reserve(&self, connection: &Connection, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        for batch in deliveries.chunks(BATCH) {
            let mut script = self.reserve.prepare_invoke();
            script.key(names::UNACKED_INDEX).key(names::UNACKED);
            for delivery in batch {
                script
                    .arg(delivery.tag.as_str())
                    .arg(&delivery.raw)
                    .arg(names::reservation_tail(&delivery.queue));
            }
            connection.script::<()>(&script).await?;
        }
        Ok(())
    }

    fn renewed(&self) -> MutexGuard<'_, Option<f64>> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// KEYS: unacked_index, unacked. ARGV: per delivery its tag, the message, the tail of its reservation. As when it was
/// received, a message that is clearly no JSON is reserved as a JSON string.
const RESERVE: &str = r"
local time = redis.call('TIME')
local now = string.format('%d', time[1] + 1)
for i = 1, #ARGV, 3 do
    local body = ARGV[i + 1]
    if string.sub(body, 1, 1) ~= '{' or string.sub(body, -1) ~= '}' then body = cjson.encode(body) end
    redis.call('HSETNX', KEYS[2], ARGV[i], '[' .. body .. ARGV[i + 2])
    redis.call('ZADD', KEYS[1], now, ARGV[i])
end
";
