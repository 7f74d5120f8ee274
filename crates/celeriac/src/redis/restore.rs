//! Returns the messages of dead workers to their queues.
//!
//! There are two criteria. As in Celery, any delivery that was not renewed within the visibility timeout is
//! restored. A Celeriac worker also has a lease; when the lease expires, all deliveries of that worker are
//! restored. During an outage of Redis, the leases of live workers expire too, so leases are ignored until
//! this connection has existed for the duration of a lease.
//!
//! Celery's workers use a mutex, which remains locked for five minutes if its owner dies. Here, one script
//! checks and moves a message, so any number of workers may run it concurrently.

use std::collections::HashSet;

use serde_json::{Value, value::RawValue};

use super::{RedisBroker, commands, names, script::Invocation, scripts};
use crate::{
    broker::{BrokerError, DeliveryTag, ResultBackend},
    exception::Exception,
    log::error,
    message::{self, Message, mark_abandoned},
    result::ResultMeta,
    system,
};

/// Maximum number of deliveries that one pass restores.
const BATCH: usize = 1000;
/// Maximum number of expired leases read, the most recent first. Deliveries with older leases wait for their
/// visibility timeout.
const MAX_EXPIRED_LEASES: usize = 10_000;
/// Page size of the search for deliveries of dead workers, and the maximum number of pages.
const PAGE: usize = 10_000;
const MAX_PAGES: usize = 100;
/// Maximum number of consecutive passes; the remaining deliveries wait for the next call.
const MAX_PASSES: usize = 20;
/// Time after which an expired lease is deleted.
pub(super) const FORGET_LEASE_SECONDS: f64 = 86_400.0;

/// A delivery that is restored if its last renewal is before `cutoff`, or if the lease of `instance` (if not
/// empty) has expired.
pub(super) struct Candidate {
    pub tag: DeliveryTag,
    pub cutoff: f64,
    pub instance: String,
}

impl RedisBroker {
    /// Returns the time of the server's clock, which all workers share, in seconds since 1970.
    pub(super) async fn server_time(&self) -> Result<f64, BrokerError> {
        let (seconds, microseconds): (f64, f64) =
            self.commands.command(commands::TIME, commands::NO_ARGS).await?;
        Ok(seconds + microseconds / 1e6)
    }

    /// Restores expired deliveries, and buries messages whose workers died too often. Returns the number of
    /// restored messages.
    pub(super) async fn restore_all_expired(&self) -> Result<usize, BrokerError> {
        let mut restored = 0;
        for _ in 0..MAX_PASSES {
            if self.restore_batch(&mut restored).await? < BATCH {
                break;
            }
        }
        Ok(restored)
    }

    /// Restores one batch and adds the number of restored messages to `restored`. Returns the number of
    /// deliveries examined.
    async fn restore_batch(&self, restored: &mut usize) -> Result<usize, BrokerError> {
        let now = self.server_time().await?;
        let cutoff = now - self.config.visibility_timeout.as_secs_f64();
        let mut candidates = self.overdue(cutoff).await?;
        if self.commands.live().await?.since.elapsed() >= self.config.lease {
            candidates.extend(self.orphans(now, cutoff).await?);
        }
        if candidates.is_empty() {
            return Ok(0);
        }
        let tags: Vec<&str> = candidates.iter().map(|delivery| delivery.tag.as_str()).collect();
        let args = (names::UNACKED, tags);
        let reservations: Vec<Option<Vec<u8>>> = self.commands.command(commands::HMGET, args).await?;
        // Latest first: each message is put at the head of its list, where the oldest must end up.
        for (delivery, reservation) in candidates.iter().zip(reservations).rev() {
            match reservation {
                Some(reservation) => {
                    *restored += usize::from(self.restore_one(delivery, &reservation).await?);
                }
                // The delivery was settled in the meantime, or its index entry has no message.
                None => {
                    let entry = (names::UNACKED_INDEX, delivery.tag.as_str());
                    self.commands.command::<()>(commands::ZREM, entry).await?;
                }
            }
        }
        Ok(candidates.len())
    }

    /// Returns deliveries that were not renewed within the visibility timeout.
    async fn overdue(&self, cutoff: f64) -> Result<Vec<Candidate>, BrokerError> {
        let overdue = (names::UNACKED_INDEX, "-inf", cutoff, "LIMIT", 0, BATCH);
        let tags: Vec<String> = self.commands.command(commands::ZRANGEBYSCORE, overdue).await?;
        let candidates = tags.into_iter().map(|tag| Candidate {
            tag: DeliveryTag(tag),
            cutoff,
            instance: String::new(),
        });
        Ok(candidates.collect())
    }

    /// Returns deliveries of instances whose lease has expired.
    async fn orphans(&self, now: f64, cutoff: f64) -> Result<Vec<Candidate>, BrokerError> {
        let limit = ("BYSCORE", "REV", "LIMIT", 0, MAX_EXPIRED_LEASES);
        let newest = (names::LEASES, now, "-inf", limit);
        let expired: HashSet<String> = self.commands.command(commands::EXPIRED_LEASES, newest).await?;
        if expired.is_empty() {
            return Ok(Vec::new());
        }
        let mut orphans = Vec::new();
        // Oldest first. A page may contain only deliveries of Python workers, which have no leases.
        for page in 0..MAX_PAGES {
            let oldest = (names::UNACKED_INDEX, page * PAGE, (page + 1) * PAGE - 1);
            let tags: Vec<String> = self.commands.command(commands::ZRANGE, oldest).await?;
            let full = tags.len() == PAGE;
            orphans.extend(tags.into_iter().filter_map(|tag| {
                let (instance, _) = tag.split_once('/')?;
                let instance = expired.get(instance)?.clone();
                Some(Candidate {
                    tag: DeliveryTag(tag),
                    cutoff,
                    instance,
                })
            }));
            if !full || orphans.len() >= BATCH {
                break;
            }
        }
        orphans.truncate(BATCH);
        let forgotten = (names::LEASES, "-inf", now - FORGET_LEASE_SECONDS);
        self.commands
            .command::<()>(commands::ZREMRANGEBYSCORE, forgotten)
            .await?;
        Ok(orphans)
    }

    /// Restores or buries a message. Returns whether it was restored.
    async fn restore_one(&self, delivery: &Candidate, reservation: &[u8]) -> Result<bool, BrokerError> {
        let message = reserved(reservation).and_then(|(raw, queue)| {
            let (marked, times) = mark_abandoned(&raw)?;
            Some((raw, queue, marked, times))
        });
        let (raw, queue, reason) = match &message {
            Some((raw, queue, marked, times)) if *times < self.config.delivery_limit => {
                let mut script = Invocation::on_delivery(&scripts::RESTORE, &delivery.tag);
                script
                    .key(names::list(queue, message::priority(raw)))
                    .key(names::LEASES)
                    .arg(marked)
                    .arg("")
                    .arg(delivery.cutoff)
                    .arg(&delivery.instance);
                return Ok(self.commands.script::<i64>(&script).await? == 1);
            }
            Some((raw, queue, _, times)) => {
                let reason = format!("{times} workers died while processing it");
                (raw.as_slice(), queue.as_str(), reason)
            }
            None => (reservation, "", "the reservation cannot be decoded".to_owned()),
        };
        let expired = Some(delivery);
        if self
            .bury_held(&delivery.tag, queue, raw, &reason, expired)
            .await?
        {
            let (tag, bytes) = (delivery.tag.as_str(), raw.len());
            error!(
                tag,
                queue, reason, bytes, "moved a message to the dead-letter list"
            );
            if message.is_some() {
                self.commands.observer.buried(queue);
            }
            if let Some(meta) = worker_lost(raw) {
                self.store_result(&meta).await?;
            }
        }
        Ok(false)
    }
}

/// Returns the failure of a task whose message was buried, with Celery's exception.
fn worker_lost(raw: &[u8]) -> Option<ResultMeta> {
    let headers = Message::decode(raw).ok()?.headers;
    if headers.ignore_result {
        return None;
    }
    let exception = Exception::new("WorkerLostError", "Worker exited prematurely too often.")
        .module("billiard.exceptions");
    Some(ResultMeta::failure(&headers, &exception, system::now()))
}

/// Returns the message, byte for byte, and the queue of a reservation `[message, exchange, routing key]`.
pub(super) fn reserved(reservation: &[u8]) -> Option<(Vec<u8>, String)> {
    let (message, _exchange, queue): (&RawValue, Value, String) = serde_json::from_slice(reservation).ok()?;
    let raw = match serde_json::from_str::<String>(message.get()) {
        Ok(text) => text.into_bytes(),
        Err(_) => message.get().as_bytes().to_vec(),
    };
    Some((raw, queue))
}
