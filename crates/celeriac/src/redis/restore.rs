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

use super::{
    RedisBroker, commands,
    judge::Observation,
    names,
    script::{Invocation, scripts},
    scripts,
};
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
/// Number of bytes after which a request reads no more reservations.
const READ_BYTES: usize = 1 << 20;
/// Time around the last renewal of a dead worker's lease in which its deliveries are searched for: before it, in
/// addition to several leases; after it, in case the clock was changed.
const SEARCHED_SECONDS: f64 = 600.0;
const MAX_SEARCHED_LEASE: Duration = Duration::from_secs(3600);
/// Maximum number of consecutive passes; the remaining deliveries wait for the next call.
const MAX_PASSES: usize = 20;
/// Time after which an expired lease is deleted.
pub(super) const FORGET_LEASE_SECONDS: f64 = 86_400.0;
/// Default lease of earlier releases, whose leases do not state their length.
const UNKNOWN_LEASE: Duration = Duration::from_secs(20);

/// Scores of the leases of dead workers.
type DeadWorkers = HashMap<String, f64, system::HashState>;

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
    /// Returns the time of the server's clock in seconds since the Unix epoch.
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
        let candidates = self.overdue(now).await?;
        let (postponed, mut candidates): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .partition(|delivery| delivery.tag.as_str().starts_with(names::LATER));
        let postponed: Vec<DeliveryTag> = postponed.into_iter().map(|delivery| delivery.tag).collect();
        self.recall_tags(&postponed).await?;
        candidates.extend(self.orphans(&dead).await?);
        // Latest first: each message is put at the head of its list, where the oldest must end up.
        candidates.reverse();
        let tags: Vec<DeliveryTag> = candidates.iter().map(|delivery| delivery.tag.clone()).collect();
        let mut done = 0;
        while done < tags.len() {
            let rest = &tags[done..];
            let reservations = self.reservations(&self.commands, rest, READ_BYTES).await?;
            for (delivery, reservation) in candidates[done..].iter().zip(reservations) {
                done += 1;
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
        }
        Ok(candidates.len() + postponed.len())
    }

    /// Observes the leases. Returns the dead workers, without those whose deliveries have all been restored,
    /// and the server's time.
    async fn dead_workers(&self) -> Result<(DeadWorkers, f64), BrokerError> {
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
        let mut dead = DeadWorkers::default();
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
    /// also have been seen unchanged by this handle, in case the server's clock was changed. Includes postponed
    /// deliveries that are due and that no worker has received.
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
            let is_postponed = tag.starts_with(names::LATER);
            is_postponed || !tag.contains('/') || judge.observe(tag, *score, observation, round) >= required
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
    async fn orphans(&self, dead: &DeadWorkers) -> Result<Vec<Candidate>, BrokerError> {
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        let mut by_time: Vec<(&String, &f64)> = dead.iter().collect();
        by_time.sort_by(|one, other| one.1.total_cmp(other.1));
        let mut orphans: Vec<Candidate> = Vec::new();
        // Workers that died at about the same time share a search.
        for group in by_time.chunk_by(|one, other| other.1 - one.1 < SEARCHED_SECONDS) {
            let (Some((_, first)), Some((_, last))) = (group.first(), group.last()) else {
                continue;
            };
            let instances: Vec<&str> = group.iter().map(|(instance, _)| instance.as_str()).collect();
            let leases = instances
                .iter()
                .map(|instance| names::lease_of(instance).unwrap_or(UNKNOWN_LEASE));
            let lease = leases.max().unwrap_or_default().min(MAX_SEARCHED_LEASE);
            let from = *first - SEARCHED_SECONDS - 8.0 * lease.as_secs_f64();
            let max = BATCH - orphans.len();
            let tags = self
                .reserved_by(&instances, from, *last + SEARCHED_SECONDS, max)
                .await?;
            let complete = tags.len() < max;
            for (instance, score) in group {
                let of_instance = tags
                    .iter()
                    .filter(|tag| tag.instance() == Some(instance.as_str()));
                let found = of_instance.map(|tag| Candidate {
                    tag: tag.clone(),
                    judged: Judged {
                        set: self.names().leases.clone(),
                        member: (*instance).clone(),
                        score: **score,
                    },
                });
                let before = orphans.len();
                orphans.extend(found);
                if complete && orphans.len() == before {
                    self.lease.judge.lock().set_restored(instance);
                }
            }
            if !complete {
                break;
            }
        }
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

    /// Returns up to `max` deliveries that these instances have reserved or renewed between two times, oldest
    /// first.
    ///
    /// The search skips postponed deliveries, of which there may be millions.
    pub(super) async fn reserved_by(
        &self,
        instances: &[&str],
        from: f64,
        to: f64,
        max: usize,
    ) -> Result<Vec<DeliveryTag>, BrokerError> {
        let mut script = Invocation::new(&RESERVED_BY);
        script
            .key(&self.names().unacked_index)
            .arg(from)
            .arg(to)
            .arg(max)
            .arg(instances);
        let tags: Vec<String> = self.commands.script(&script).await?;
        Ok(tags.into_iter().map(DeliveryTag).collect())
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
                celery.delivery_tag = tag,
                messaging.destination.name = queue,
                reason,
                messaging.message.envelope.size = bytes,
                "moved a message to the dead-letter list"
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

scripts! {
    /// Finds deliveries of instances by their scores. The scores of postponed deliveries are multiples of 10
    /// plus 0.5, and no other delivery of this crate has such a score.
    ///
    /// KEYS: unacked_index. ARGV: lowest and highest score, maximum number, instances.
    RESERVED_BY = r"
local wanted, found = {}, {}
for i = 4, #ARGV do wanted[ARGV[i]] = true end
local max = tonumber(ARGV[3])
for tens = math.floor(ARGV[1] / 10), math.ceil(ARGV[2] / 10) do
    local from, to = string.format('(%.1f', tens * 10 - 9.5), string.format('(%.1f', tens * 10 + 0.5)
    for _, tag in ipairs(redis.call('ZRANGE', KEYS[1], from, to, 'BYSCORE')) do
        if wanted[string.match(tag, '^[^/]+')] then
            if #found == max then return found end
            found[#found + 1] = tag
        end
    end
end
return found
";
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
