//! Returns the messages of dead workers to their queues.
//!
//! A Celeriac worker is dead if its lease was not renewed for as long as [`judge`](super::judge) requires;
//! all of its deliveries are then restored. As in Celery, any other delivery that was not renewed within the
//! visibility timeout is restored too.
//!
//! Celery's workers use a mutex, which remains locked for five minutes if its owner dies. Here, one script
//! moves a message if the lease still has the score that was judged, so any number of workers may run it
//! concurrently.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use redis::pipe;
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use super::{RedisBroker, commands, judge::Observation, names, script::Invocation, scripts};
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
/// Number of leases that a pass reads, the most recent first, and the number that every `FULL_PASS`th pass
/// reads. Deliveries with older leases wait for their visibility timeout.
const MAX_LEASES: usize = 1000;
const MAX_ALL_LEASES: usize = 10_000;
const FULL_PASS: u64 = 16;
/// Page size of the search for deliveries of dead workers, and the maximum number of pages.
pub(super) const PAGE: usize = 10_000;
pub(super) const MAX_PAGES: usize = 100;
/// Maximum number of consecutive passes; the remaining deliveries wait for the next call.
const MAX_PASSES: usize = 20;
/// Time after which an expired lease is deleted.
pub(super) const FORGET_LEASE_SECONDS: f64 = 86_400.0;
/// Default lease of earlier releases, whose leases do not tell their length.
const UNKNOWN_LEASE: Duration = Duration::from_secs(20);

/// A delivery that is restored if the member of a sorted set still has the score that was judged.
pub(super) struct Candidate {
    pub tag: DeliveryTag,
    pub judged: Judged,
}

/// A score that shows that a worker is dead: of its lease, or of one delivery.
#[derive(Clone)]
pub(super) struct Judged {
    pub set: String,
    pub member: String,
    pub score: f64,
}

impl RedisBroker {
    /// Returns the time of the server's clock in seconds since 1970.
    pub(super) async fn server_time(&self) -> Result<f64, BrokerError> {
        let time: (f64, f64) = self.commands.command(commands::TIME, commands::NO_ARGS).await?;
        Ok(seconds(time))
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
        let (dead, now) = self.dead_workers().await?;
        let mut candidates = self.overdue(now).await?;
        candidates.extend(self.orphans(&dead).await?);
        if candidates.is_empty() {
            return Ok(0);
        }
        let tags: Vec<&str> = candidates.iter().map(|delivery| delivery.tag.as_str()).collect();
        let args = (&self.names().unacked, tags);
        let reservations: Vec<Option<Vec<u8>>> = self.commands.command(commands::HMGET, args).await?;
        // Latest first: each message is put at the head of its list, where the oldest must end up.
        for (delivery, reservation) in candidates.iter().zip(reservations).rev() {
            match reservation {
                Some(reservation) => {
                    *restored += usize::from(self.restore_one(delivery, &reservation).await?);
                }
                // The delivery was settled in the meantime, or its index entry has no message.
                None => {
                    let entry = (&self.names().unacked_index, delivery.tag.as_str());
                    self.commands.command::<()>(commands::ZREM, entry).await?;
                }
            }
        }
        Ok(candidates.len())
    }

    /// Observes the leases. Returns the dead workers, without those whose deliveries have all been restored,
    /// and the server's time.
    async fn dead_workers(&self) -> Result<(HashMap<String, f64>, f64), BrokerError> {
        let round = self.lease.observations.fetch_add(1, Ordering::Relaxed);
        let full = round.is_multiple_of(FULL_PASS);
        let last = if full { MAX_ALL_LEASES } else { MAX_LEASES } - 1;
        let mut pipeline = pipe();
        pipeline.cmd("TIME");
        pipeline
            .cmd("ZRANGE")
            .arg((&self.names().leases, 0, last, "REV", "WITHSCORES"));
        let sent = Instant::now();
        let (time, leases): ((f64, f64), Vec<(String, f64)>) =
            self.commands.pipeline(commands::LEASES, &pipeline).await?;
        let observation = Observation {
            sent,
            received: Instant::now(),
            available_since: self.commands.live().await?.since,
        };
        let now = seconds(time);
        let mut judge = self.lease.judge.lock();
        judge.begin(observation, self.config.lease / 2);
        let mut dead = HashMap::new();
        for (instance, score) in leases {
            let unchanged = judge.observe(&instance, score, observation, round);
            let expired = match names::lease_of(&instance) {
                Some(lease) => unchanged >= lease,
                None => unchanged >= self.config.lease.max(UNKNOWN_LEASE) && score <= now,
            };
            if expired && instance != self.instance && !judge.is_restored(&instance) {
                dead.insert(instance, score);
            }
        }
        if full {
            judge.forget_before(round);
        }
        Ok((dead, now))
    }

    /// Returns deliveries that were not renewed within the visibility timeout. Those of Celeriac workers must
    /// also have been seen unchanged by this handle, in case the server's clock was changed.
    async fn overdue(&self, now: f64) -> Result<Vec<Candidate>, BrokerError> {
        let cutoff = now - self.config.visibility_timeout.as_secs_f64();
        let overdue = (
            &self.names().unacked_index,
            "-inf",
            cutoff,
            "WITHSCORES",
            "LIMIT",
            0,
            BATCH,
        );
        let sent = Instant::now();
        let tags: Vec<(String, f64)> = self.commands.command(commands::ZRANGEBYSCORE, overdue).await?;
        let received = Instant::now();
        let observation = Observation {
            sent,
            received,
            available_since: received,
        };
        let mut judge = self.lease.judge.lock();
        let round = self.lease.observations.load(Ordering::Relaxed);
        let required = self.config.lease.min(self.config.visibility_timeout);
        let candidates = tags.into_iter().filter(|(tag, score)| {
            let is_own_format = tag.contains('/');
            !is_own_format || judge.observe(tag, *score, observation, round) >= required
        });
        let candidates = candidates.map(|(tag, score)| Candidate {
            judged: Judged {
                set: self.names().unacked_index.clone(),
                member: tag.clone(),
                score,
            },
            tag: DeliveryTag(tag),
        });
        Ok(candidates.collect())
    }

    /// Returns deliveries of dead workers.
    async fn orphans(&self, dead: &HashMap<String, f64>) -> Result<Vec<Candidate>, BrokerError> {
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        let mut orphans: Vec<Candidate> = Vec::new();
        let mut complete = false;
        // Oldest first. A page may contain only deliveries of Python workers, which have no leases.
        for page in 0..MAX_PAGES {
            let oldest = (&self.names().unacked_index, page * PAGE, (page + 1) * PAGE - 1);
            let tags: Vec<String> = self.commands.command(commands::ZRANGE, oldest).await?;
            let full = tags.len() == PAGE;
            orphans.extend(tags.into_iter().filter_map(|tag| {
                let (instance, _) = tag.split_once('/')?;
                let (member, score) = dead.get_key_value(instance)?;
                let judged = Judged {
                    set: self.names().leases.clone(),
                    member: member.clone(),
                    score: *score,
                };
                Some(Candidate {
                    tag: DeliveryTag(tag),
                    judged,
                })
            }));
            complete = !full;
            if complete || orphans.len() >= BATCH {
                break;
            }
        }
        if complete {
            let mut judge = self.lease.judge.lock();
            for instance in dead.keys() {
                if !orphans.iter().any(|orphan| orphan.judged.member == *instance) {
                    judge.set_restored(instance);
                }
            }
        }
        orphans.truncate(BATCH);
        let forgotten = (
            &self.names().leases,
            "-inf",
            self.server_time().await? - FORGET_LEASE_SECONDS,
        );
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
                let mut script = Invocation::on_delivery(&scripts::RESTORE, self.names(), &delivery.tag);
                script
                    .key(self.names().list(queue, message::priority(raw)))
                    .arg(marked);
                delivery.judged.add_to(script.arg(""));
                return Ok(self.commands.script::<i64>(&script).await? == 1);
            }
            Some((raw, queue, _, times)) => {
                let reason = format!("{times} workers died while processing it");
                (raw.as_slice(), queue.as_str(), reason)
            }
            None => (reservation, "", "the reservation cannot be decoded".to_owned()),
        };
        let judged = Some(&delivery.judged);
        if self.bury_held(&delivery.tag, queue, raw, &reason, judged).await? {
            let (tag, bytes) = (delivery.tag.as_str(), raw.len());
            error!(
                tag,
                queue, reason, bytes, "moved a message to the dead-letter list"
            );
            if message.is_some() {
                self.commands.observer.buried(queue);
            }
            if let Some(meta) = worker_lost(raw) {
                self.store_unless_ended(&meta).await?;
            }
        }
        Ok(false)
    }
}

impl Judged {
    /// Adds the condition of [`scripts::RESTORE`] and [`scripts::BURY`] that the score is unchanged.
    pub(super) fn add_to(&self, script: &mut Invocation<'_>) {
        script.key(&self.set).arg(&self.member).arg(self.score);
    }
}

fn seconds((seconds, microseconds): (f64, f64)) -> f64 {
    seconds + microseconds / 1e6
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
