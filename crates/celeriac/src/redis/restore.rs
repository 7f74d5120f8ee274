//! Gives back the messages of workers that are gone, under the mutex that Celery's workers use for the same.
//!
//! Two signs say that a worker is gone. A delivery that nobody has renewed for the visibility timeout is free, whoever
//! held it: that is Celery's rule. A Celeriac worker also keeps a lease; when it has ended, everything that worker
//! held is free at once. After an outage of Redis all leases have ended, of the living too, so nobody judges by them
//! before having been connected for as long as a lease lasts.

use redis::cmd;
use serde_json::{Value, value::RawValue};
use tracing::warn;

use super::{config::RedisConfig, connection::Connection, names, scripts::Scripts};
use crate::{broker::BrokerError, message::mark_redelivered, system};

/// How many deliveries one pass looks at; the next pass takes the rest.
const BATCH: usize = 1000;
/// Celery's own bound on how long the mutex is held.
const MUTEX_MILLISECONDS: u64 = 300_000;
/// Leases that ended this long ago are forgotten.
const FORGET_LEASE_SECONDS: f64 = 86_400.0;

/// The server's clock, which all workers share, in seconds since 1970.
pub(super) async fn server_time(connection: &Connection) -> Result<f64, BrokerError> {
    let (seconds, microseconds): (f64, f64) = connection.command(&cmd("TIME")).await?;
    Ok(seconds + microseconds / 1e6)
}

pub(super) async fn restore_expired(
    connection: &Connection,
    scripts: &Scripts,
    config: &RedisConfig,
) -> Result<usize, BrokerError> {
    let token = system::random_id().to_string();
    let mut acquire = cmd("SET");
    acquire
        .arg(names::UNACKED_MUTEX)
        .arg(&token)
        .arg("PX")
        .arg(MUTEX_MILLISECONDS)
        .arg("NX");
    if connection.command::<Option<String>>(&acquire).await?.is_none() {
        return Ok(0);
    }
    let restored = pass(connection, scripts, config).await;
    let mut release = scripts.release.prepare_invoke();
    release.key(names::UNACKED_MUTEX).arg(&token);
    // If the release fails the mutex ends by itself.
    let released = connection.script::<()>(&release).await;
    restored.and_then(|count| released.map(|()| count))
}

async fn pass(
    connection: &Connection,
    scripts: &Scripts,
    config: &RedisConfig,
) -> Result<usize, BrokerError> {
    let now = server_time(connection).await?;
    let cutoff = now - config.visibility_timeout.as_secs_f64();
    let mut overdue = cmd("ZRANGEBYSCORE");
    overdue
        .arg(names::UNACKED_INDEX)
        .arg("-inf")
        .arg(cutoff)
        .arg("LIMIT")
        .arg(0)
        .arg(BATCH);
    let mut free: Vec<(String, String)> = connection
        .command::<Vec<String>>(&overdue)
        .await?
        .into_iter()
        .map(|tag| (tag, String::new()))
        .collect();
    if connection.live().await?.since.elapsed() >= config.lease {
        free.extend(orphans(connection, now).await?);
    }
    let mut restored = 0;
    // The latest first, so that the oldest ends up at the head of its list.
    for (tag, instance) in free.into_iter().rev() {
        if restore_one(connection, scripts, config, &tag, cutoff, &instance).await? {
            restored += 1;
        }
    }
    Ok(restored)
}

/// Deliveries of instances whose lease has ended, with the instance.
async fn orphans(connection: &Connection, now: f64) -> Result<Vec<(String, String)>, BrokerError> {
    let mut ended = cmd("ZRANGEBYSCORE");
    ended
        .arg(names::LEASES)
        .arg("-inf")
        .arg(now)
        .arg("LIMIT")
        .arg(0)
        .arg(BATCH);
    let ended: Vec<String> = connection.command(&ended).await?;
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    let mut oldest = cmd("ZRANGE");
    oldest.arg(names::UNACKED_INDEX).arg(0).arg(BATCH * 10);
    let tags: Vec<String> = connection.command(&oldest).await?;
    let orphans = tags.into_iter().filter_map(|tag| {
        let instance = tag.split_once('/')?.0.to_owned();
        ended.contains(&instance).then_some((tag, instance))
    });
    let orphans = orphans.take(BATCH).collect();
    let mut forget = cmd("ZREMRANGEBYSCORE");
    forget
        .arg(names::LEASES)
        .arg("-inf")
        .arg(now - FORGET_LEASE_SECONDS);
    connection.command::<()>(&forget).await?;
    Ok(orphans)
}

async fn restore_one(
    connection: &Connection,
    scripts: &Scripts,
    config: &RedisConfig,
    tag: &str,
    cutoff: f64,
    instance: &str,
) -> Result<bool, BrokerError> {
    let reservation: Option<Vec<u8>> = connection
        .command(cmd("HGET").arg(names::UNACKED).arg(tag))
        .await?;
    let Some(reservation) = reservation else {
        // Ended meanwhile, or an index entry that lost its message: either way there is nothing to keep.
        connection
            .command::<()>(cmd("ZREM").arg(names::UNACKED_INDEX).arg(tag))
            .await?;
        return Ok(false);
    };
    let message = reserved(&reservation).and_then(|(raw, queue)| {
        let marked = mark_redelivered(&raw)?;
        Some((names::list(&queue, priority(&raw)), marked))
    });
    let Some((list, message)) = message else {
        warn!(
            tag,
            "a reserved message that cannot be read goes to the dead-letter list"
        );
        let mut bury = scripts.bury.prepare_invoke();
        bury.key(names::UNACKED_INDEX)
            .key(names::UNACKED)
            .key(names::DEAD)
            .arg(tag)
            .arg(super::dead_letter(
                "",
                &reservation,
                "the reservation cannot be read",
            ))
            .arg(config.dead_letter_capacity);
        connection.script::<()>(&bury).await?;
        return Ok(false);
    };
    let mut script = scripts.restore_expired.prepare_invoke();
    script
        .key(names::UNACKED_INDEX)
        .key(names::UNACKED)
        .key(list)
        .key(names::LEASES)
        .arg(tag)
        .arg(message)
        .arg(cutoff)
        .arg(instance);
    connection.script(&script).await
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
