//! Returns the messages of dead workers to their queues.
//!
//! There are two criteria. As in Celery, any delivery that was not renewed within the visibility timeout is
//! restored. A Celeriac worker also has a lease; when the lease expires, all deliveries of that worker are
//! restored at once. During an outage of Redis, the leases of all workers expire, even of live ones, so
//! leases are ignored until this connection has existed for the duration of a lease.
//!
//! Celery's workers use a mutex, which remains locked for five minutes if its owner dies. Here, one script
//! checks and moves a message, so any number of workers may run it concurrently.

use std::collections::{HashMap, HashSet};

use redis::cmd;
use serde_json::{Value, value::RawValue};

use super::{bury, commands, config::RedisConfig, connection::Connection, names, scripts::Scripts};
use crate::{
    broker::{BrokerError, DeadLetter},
    exception::Exception,
    log::error,
    message::{Message, mark_abandoned},
    result::ResultMeta,
    system,
};

/// Maximum number of deliveries that one pass restores.
const BATCH: usize = 1000;
/// Page size of the search for deliveries of dead workers, and the maximum number of pages.
const PAGE: usize = 10_000;
const MAX_PAGES: usize = 100;
/// Maximum number of consecutive passes; the remaining deliveries wait for the next call.
const MAX_PASSES: usize = 20;
/// Time after which an expired lease is deleted.
pub(super) const FORGET_LEASE_SECONDS: f64 = 86_400.0;

/// Queue and result of a message moved to the dead-letter list.
pub(super) type Buried = (String, Option<ResultMeta>);

/// Returns the time of the server's clock, which all workers share, in seconds since 1970.
pub(super) async fn server_time(connection: &Connection) -> Result<f64, BrokerError> {
    let (seconds, microseconds): (f64, f64) = connection.command(commands::TIME, &cmd("TIME")).await?;
    Ok(seconds + microseconds / 1e6)
}

/// Restores expired deliveries. Returns the number of restored messages, and the messages that were buried
/// because their workers died too often.
pub(super) async fn restore_expired(
    connection: &Connection,
    scripts: &Scripts,
    config: &RedisConfig,
) -> Result<(usize, Vec<Buried>), BrokerError> {
    let mut run = RestoreRun {
        connection,
        scripts,
        config,
        restored: 0,
        buried: Vec::new(),
    };
    for _ in 0..MAX_PASSES {
        if run.pass().await? < BATCH {
            break;
        }
    }
    Ok((run.restored, run.buried))
}

struct RestoreRun<'a> {
    connection: &'a Connection,
    scripts: &'a Scripts,
    config: &'a RedisConfig,
    restored: usize,
    buried: Vec<Buried>,
}

/// A delivery that is restored if its last renewal is before `cutoff`, or if the lease of `instance` (if not
/// empty) has expired.
struct Candidate {
    tag: String,
    cutoff: f64,
    instance: String,
}

/// Returns the worker that created this tag, or `None` for a Python worker.
fn instance_of(tag: &str) -> Option<&str> {
    tag.split_once('/').map(|(instance, _)| instance)
}

impl RestoreRun<'_> {
    /// Restores one batch. Returns the number of deliveries examined.
    async fn pass(&mut self) -> Result<usize, BrokerError> {
        let now = server_time(self.connection).await?;
        let cutoff = now - self.config.visibility_timeout.as_secs_f64();
        let mut candidates = self.overdue(cutoff).await?;
        if self.connection.live().await?.since.elapsed() >= self.config.lease {
            candidates.extend(self.orphans(now, cutoff).await?);
        }
        if candidates.is_empty() {
            return Ok(0);
        }
        let mut get = cmd("HMGET");
        get.arg(names::UNACKED);
        for delivery in &candidates {
            get.arg(&delivery.tag);
        }
        let reservations: Vec<Option<Vec<u8>>> = self.connection.command(commands::HMGET, &get).await?;
        // Latest first, so that the oldest ends up at the head of its list.
        for (delivery, reservation) in candidates.iter().zip(reservations).rev() {
            match reservation {
                Some(reservation) => self.restore(delivery, &reservation).await?,
                // The delivery was settled in the meantime, or the index entry has no message.
                None => {
                    let mut forget = cmd("ZREM");
                    forget.arg(names::UNACKED_INDEX).arg(&delivery.tag);
                    self.connection.command::<()>(commands::ZREM, &forget).await?;
                }
            }
        }
        Ok(candidates.len())
    }

    /// Returns deliveries that were not renewed within the visibility timeout.
    async fn overdue(&self, cutoff: f64) -> Result<Vec<Candidate>, BrokerError> {
        let mut overdue = cmd("ZRANGEBYSCORE");
        overdue.arg(names::UNACKED_INDEX).arg("-inf").arg(cutoff);
        overdue.arg("LIMIT").arg(0).arg(BATCH);
        let tags: Vec<String> = self.connection.command(commands::ZRANGEBYSCORE, &overdue).await?;
        let candidates = tags.into_iter().map(|tag| Candidate {
            tag,
            cutoff,
            instance: String::new(),
        });
        Ok(candidates.collect())
    }

    /// Returns deliveries of instances whose lease has expired.
    async fn orphans(&self, now: f64, cutoff: f64) -> Result<Vec<Candidate>, BrokerError> {
        let mut count = cmd("ZCOUNT");
        count.arg(names::LEASES).arg("-inf").arg(now);
        if self.connection.command::<u64>(commands::ZCOUNT, &count).await? == 0 {
            return Ok(Vec::new());
        }
        let mut orphans = Vec::new();
        let mut expired = HashMap::new();
        // Oldest first. A page may contain only deliveries of Python workers, which have no leases.
        for page in 0..MAX_PAGES {
            let mut oldest = cmd("ZRANGE");
            oldest.arg(names::UNACKED_INDEX);
            oldest.arg(page * PAGE).arg((page + 1) * PAGE - 1);
            let tags: Vec<String> = self.connection.command(commands::ZRANGE, &oldest).await?;
            self.read_leases(&tags, now, &mut expired).await?;
            let full = tags.len() == PAGE;
            orphans.extend(tags.into_iter().filter_map(|tag| {
                let instance = instance_of(&tag)?.to_owned();
                expired.get(&instance)?.then_some(Candidate {
                    tag,
                    cutoff,
                    instance,
                })
            }));
            if !full || orphans.len() >= BATCH {
                break;
            }
        }
        orphans.truncate(BATCH);
        let mut forget = cmd("ZREMRANGEBYSCORE");
        forget
            .arg(names::LEASES)
            .arg("-inf")
            .arg(now - FORGET_LEASE_SECONDS);
        self.connection
            .command::<()>(commands::ZREMRANGEBYSCORE, &forget)
            .await?;
        Ok(orphans)
    }

    /// Adds to `expired` whether the lease of each instance with one of these deliveries has expired.
    async fn read_leases(
        &self,
        tags: &[String],
        now: f64,
        expired: &mut HashMap<String, bool>,
    ) -> Result<(), BrokerError> {
        let unknown: HashSet<&str> = tags
            .iter()
            .filter_map(|tag| instance_of(tag))
            .filter(|instance| !expired.contains_key(*instance))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        let mut leases = cmd("ZMSCORE");
        leases.arg(names::LEASES).arg(&unknown);
        let leases: Vec<Option<f64>> = self.connection.command(commands::ZMSCORE, &leases).await?;
        expired.extend(
            unknown
                .into_iter()
                .zip(leases)
                .map(|(instance, lease)| (instance.to_owned(), lease.is_some_and(|end| end <= now))),
        );
        Ok(())
    }

    async fn restore(&mut self, delivery: &Candidate, reservation: &[u8]) -> Result<(), BrokerError> {
        let message = reserved(reservation).and_then(|(raw, queue)| {
            let (marked, times) = mark_abandoned(&raw)?;
            Some((raw, queue, marked, times))
        });
        let Some((raw, queue, marked, times)) = message else {
            let reason = "the reservation cannot be decoded";
            self.bury(delivery, "", reservation, reason).await?;
            return Ok(());
        };
        if times < self.config.delivery_limit {
            let list = names::list(&queue, priority(&raw));
            let mut script = self.scripts.restore_expired.prepare_invoke();
            script
                .key(names::UNACKED_INDEX)
                .key(names::UNACKED)
                .key(list)
                .key(names::LEASES)
                .arg(&delivery.tag)
                .arg(marked)
                .arg("")
                .arg(delivery.cutoff)
                .arg(&delivery.instance);
            if self.connection.script::<i64>(&script).await? == 1 {
                self.restored += 1;
            }
            return Ok(());
        }
        let reason = format!("{times} workers died while processing it");
        if self.bury(delivery, &queue, &raw, &reason).await? {
            self.buried.push((queue, worker_lost(&raw)));
        }
        Ok(())
    }

    /// Moves a message to the dead-letter list. Returns whether it was still expired.
    async fn bury(
        &self,
        delivery: &Candidate,
        queue: &str,
        raw: &[u8],
        reason: &str,
    ) -> Result<bool, BrokerError> {
        let mut script = self.scripts.bury_expired.prepare_invoke();
        script
            .key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::DEAD)
            .key(names::LEASES)
            .arg(&delivery.tag)
            .arg(DeadLetter::encode(queue, raw, reason))
            .arg(self.config.dead_letter_capacity.max(1))
            .arg(delivery.cutoff)
            .arg(&delivery.instance);
        let answer = self.connection.script(&script).await?;
        let buried = bury::buried(answer, self.config.dead_letter_capacity);
        if buried {
            let (tag, bytes) = (&delivery.tag, raw.len());
            error!(
                tag,
                queue, reason, bytes, "moved a message to the dead-letter list"
            );
        }
        Ok(buried)
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

/// Returns the priority of a message; 0 if it has none.
pub(super) fn priority(raw: &[u8]) -> u8 {
    let message: Value = serde_json::from_slice(raw).unwrap_or_default();
    message["properties"]["priority"]
        .as_u64()
        .map_or(0, |priority| priority.min(9) as u8)
}
