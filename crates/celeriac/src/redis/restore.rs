//! Gives back the messages of workers that are gone.
//!
//! Two signs say that a worker is gone. A delivery that nobody has renewed for the visibility timeout is free, whoever
//! held it: that is Celery's rule. A Celeriac worker also keeps a lease; when it has ended, everything that worker
//! held is free at once. After an outage of Redis all leases have ended, of the living too, so nobody judges by them
//! before having been connected for as long as a lease lasts.
//!
//! Celery's workers take a mutex for this, which lasts five minutes when its holder dies. Here the decision and
//! the move are one script, so any number of workers may try at the same time.

use std::collections::{HashMap, HashSet};

use redis::cmd;
use serde_json::{Value, value::RawValue};

use super::{commands, config::RedisConfig, connection::Connection, names, scripts::Scripts};
use crate::{
    broker::BrokerError,
    dead,
    log::error,
    message::{Message, mark_abandoned},
    result::ResultMeta,
    system,
    task::Exception,
};

/// How many deliveries one pass looks at.
const BATCH: usize = 1000;
/// How many deliveries are looked through for those of dead workers, a page at a time.
const PAGE: usize = 10_000;
const MOST_PAGES: usize = 100;
/// Passes one after another while they find something; what is left after them waits for the next time.
const MOST_PASSES: usize = 20;
/// Leases that ended this long ago are forgotten.
pub(super) const FORGET_LEASE_SECONDS: f64 = 86_400.0;

/// Queue and result of a message that went to the dead-letter list.
pub(super) type Buried = (String, Option<ResultMeta>);

/// The server's clock, which all workers share, in seconds since 1970.
pub(super) async fn server_time(connection: &Connection) -> Result<f64, BrokerError> {
    let (seconds, microseconds): (f64, f64) = connection.command(commands::TIME, &cmd("TIME")).await?;
    Ok(seconds + microseconds / 1e6)
}

/// How many messages went back to their queues, and which were delivered too often for that.
pub(super) async fn restore_expired(
    connection: &Connection,
    scripts: &Scripts,
    config: &RedisConfig,
) -> Result<(usize, Vec<Buried>), BrokerError> {
    let mut restoring = Restoring {
        connection,
        scripts,
        config,
        restored: 0,
        buried: Vec::new(),
    };
    for _ in 0..MOST_PASSES {
        if restoring.pass().await? < BATCH {
            break;
        }
    }
    Ok((restoring.restored, restoring.buried))
}

struct Restoring<'a> {
    connection: &'a Connection,
    scripts: &'a Scripts,
    config: &'a RedisConfig,
    restored: usize,
    buried: Vec<Buried>,
}

/// A delivery that is free if it is older than `cutoff`, or the lease of `instance` (if any) has ended.
struct Free {
    tag: String,
    cutoff: f64,
    instance: String,
}

/// The worker that made this tag; none when it was a Python worker.
fn instance_of(tag: &str) -> Option<&str> {
    tag.split_once('/').map(|(instance, _)| instance)
}

impl Restoring<'_> {
    /// Returns how many deliveries it has looked at.
    async fn pass(&mut self) -> Result<usize, BrokerError> {
        let now = server_time(self.connection).await?;
        let cutoff = now - self.config.visibility_timeout.as_secs_f64();
        let mut free = self.overdue(cutoff).await?;
        if self.connection.live().await?.since.elapsed() >= self.config.lease {
            free.extend(self.orphans(now, cutoff).await?);
        }
        if free.is_empty() {
            return Ok(0);
        }
        let mut get = cmd("HMGET");
        get.arg(names::UNACKED);
        for delivery in &free {
            get.arg(&delivery.tag);
        }
        let reservations: Vec<Option<Vec<u8>>> = self.connection.command(commands::HMGET, &get).await?;
        // The latest first, so that the oldest ends up at the head of its list.
        for (delivery, reservation) in free.iter().zip(reservations).rev() {
            match reservation {
                Some(reservation) => self.give_back(delivery, &reservation).await?,
                // Ended meanwhile, or an index entry that lost its message: either way there is nothing to keep.
                None => {
                    let mut forget = cmd("ZREM");
                    forget.arg(names::UNACKED_INDEX).arg(&delivery.tag);
                    self.connection.command::<()>(commands::ZREM, &forget).await?;
                }
            }
        }
        Ok(free.len())
    }

    /// Deliveries that nobody has renewed for the visibility timeout.
    async fn overdue(&self, cutoff: f64) -> Result<Vec<Free>, BrokerError> {
        let mut overdue = cmd("ZRANGEBYSCORE");
        overdue.arg(names::UNACKED_INDEX).arg("-inf").arg(cutoff);
        overdue.arg("LIMIT").arg(0).arg(BATCH);
        let tags: Vec<String> = self.connection.command(commands::ZRANGEBYSCORE, &overdue).await?;
        let free = tags.into_iter().map(|tag| Free {
            tag,
            cutoff,
            instance: String::new(),
        });
        Ok(free.collect())
    }

    /// Deliveries of instances whose lease has ended.
    async fn orphans(&self, now: f64, cutoff: f64) -> Result<Vec<Free>, BrokerError> {
        let mut count = cmd("ZCOUNT");
        count.arg(names::LEASES).arg("-inf").arg(now);
        if self.connection.command::<u64>(commands::ZCOUNT, &count).await? == 0 {
            return Ok(Vec::new());
        }
        let mut orphans = Vec::new();
        let mut ended = HashMap::new();
        // The oldest first; a page may be full of what Python workers hold, who keep no leases.
        for page in 0..MOST_PAGES {
            let mut oldest = cmd("ZRANGE");
            oldest.arg(names::UNACKED_INDEX);
            oldest.arg(page * PAGE).arg((page + 1) * PAGE - 1);
            let tags: Vec<String> = self.connection.command(commands::ZRANGE, &oldest).await?;
            self.look_at_leases(&tags, now, &mut ended).await?;
            let full = tags.len() == PAGE;
            orphans.extend(tags.into_iter().filter_map(|tag| {
                let instance = instance_of(&tag)?.to_owned();
                ended.get(&instance)?.then_some(Free {
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

    /// Adds to `ended`, for each instance that holds one of these deliveries, whether its lease has ended.
    async fn look_at_leases(
        &self,
        tags: &[String],
        now: f64,
        ended: &mut HashMap<String, bool>,
    ) -> Result<(), BrokerError> {
        let unknown: HashSet<&str> = tags
            .iter()
            .filter_map(|tag| instance_of(tag))
            .filter(|instance| !ended.contains_key(*instance))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        let mut leases = cmd("ZMSCORE");
        leases.arg(names::LEASES).arg(&unknown);
        let leases: Vec<Option<f64>> = self.connection.command(commands::ZMSCORE, &leases).await?;
        ended.extend(
            unknown
                .into_iter()
                .zip(leases)
                .map(|(instance, lease)| (instance.to_owned(), lease.is_some_and(|end| end <= now))),
        );
        Ok(())
    }

    async fn give_back(&mut self, delivery: &Free, reservation: &[u8]) -> Result<(), BrokerError> {
        let message = reserved(reservation).and_then(|(raw, queue)| {
            let (marked, times) = mark_abandoned(&raw)?;
            Some((raw, queue, marked, times))
        });
        let Some((raw, queue, marked, times)) = message else {
            let reason = "the reservation cannot be read";
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
        let reason = format!("{times} workers have died with it");
        if self.bury(delivery, &queue, &raw, &reason).await? {
            self.buried.push((queue, lost(&raw)));
        }
        Ok(())
    }

    /// Whether it was moved to the dead-letter list.
    async fn bury(
        &self,
        delivery: &Free,
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
            .arg(dead::encode(queue, raw, reason))
            .arg(self.config.dead_letter_capacity.max(1))
            .arg(delivery.cutoff)
            .arg(&delivery.instance);
        let answer = self.connection.script(&script).await?;
        let buried = super::dead::buried(answer, self.config.dead_letter_capacity);
        if buried {
            let (tag, bytes) = (&delivery.tag, raw.len());
            error!(
                tag,
                queue, reason, bytes, "a message goes to the dead-letter list"
            );
        }
        Ok(buried)
    }
}

/// What whoever waits for a task's result gets when its message has been given up, in Celery's words.
fn lost(raw: &[u8]) -> Option<ResultMeta> {
    let headers = Message::decode(raw).ok()?.headers;
    if headers.ignore_result {
        return None;
    }
    let exception = Exception {
        type_name: "WorkerLostError".to_owned(),
        module: "billiard.exceptions".to_owned(),
        message: "Worker exited prematurely too often.".to_owned(),
    };
    Some(ResultMeta::failure(&headers, &exception, system::now()))
}

/// The message, byte for byte, and the queue of a reservation `[message, exchange, routing key]`.
pub(super) fn reserved(reservation: &[u8]) -> Option<(Vec<u8>, String)> {
    let (message, _exchange, queue): (&RawValue, Value, String) = serde_json::from_slice(reservation).ok()?;
    let raw = match serde_json::from_str::<String>(message.get()) {
        Ok(text) => text.into_bytes(),
        Err(_) => message.get().as_bytes().to_vec(),
    };
    Some((raw, queue))
}

/// The priority a message was sent with; 0 when it does not say.
pub(super) fn priority(raw: &[u8]) -> u8 {
    let message: Value = serde_json::from_slice(raw).unwrap_or_default();
    message["properties"]["priority"]
        .as_u64()
        .map_or(0, |priority| priority.min(9) as u8)
}
