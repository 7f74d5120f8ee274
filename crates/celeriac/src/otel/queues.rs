//! Gauges of queues and of the dead-letter list, read every ten seconds: waiting and unacknowledged messages,
//! the age of the oldest message, and dead letters.
//!
//! Messages have no timestamp. The delivery tags of this crate are UUIDs of version 7, which contain the time
//! of sending; tags of Python clients do not. For a message without a time, the reported age is the time
//! since the message was first seen at the head of its list, which is a lower bound.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::Value;
use telemetry::KeyValue;
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use uuid::Uuid;

use super::{
    instruments::{CELERIAC, SYSTEM},
    names::metric,
};
use crate::{
    broker::{Broker, Depth},
    lock::Lock,
    system,
};

const READ_INTERVAL: Duration = Duration::from_secs(10);

/// Guard that keeps the gauges of queues up to date until dropped.
#[derive(Debug)]
pub struct QueueWatch(JoinHandle<()>);

impl Drop for QueueWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Latest reading of a queue.
struct QueueReading {
    queue: String,
    depth: Depth,
    /// Age of the oldest waiting message.
    oldest: Option<Duration>,
}

/// Latest readings; empty while the broker is unreachable.
#[derive(Default)]
struct Readings {
    queues: Vec<QueueReading>,
    dead: Option<u64>,
}

pub(super) fn watch(broker: Arc<dyn Broker>, queues: Vec<String>, server: &Arc<[KeyValue]>) -> QueueWatch {
    let readings: Arc<Lock<Readings>> = Arc::default();
    observe(
        &readings,
        server,
        metric::CELERY_QUEUE_WAITING,
        "{message}",
        "Messages waiting in the queue.",
        |queue| Some(queue.depth.waiting as f64),
    );
    observe(
        &readings,
        server,
        metric::CELERY_QUEUE_UNACKNOWLEDGED,
        "{message}",
        "Messages delivered from the queue and not yet acknowledged.",
        |queue| Some(queue.depth.unacked as f64),
    );
    observe(
        &readings,
        server,
        metric::CELERY_QUEUE_OLDEST_AGE,
        "s",
        "Age of the oldest waiting message.",
        |queue| Some(queue.oldest?.as_secs_f64()),
    );
    let (reported, of_server) = (Arc::clone(&readings), Arc::clone(server));
    CELERIAC.observe_gauge(
        metric::CELERY_DEAD_LETTERS,
        "{message}",
        "Messages in the dead-letter list.",
        move || {
            let mut attributes = vec![KeyValue::new("messaging.system", SYSTEM)];
            attributes.extend_from_slice(&of_server);
            let dead = reported.lock().dead;
            dead.map(|dead| (dead as f64, attributes)).into_iter().collect()
        },
    );
    QueueWatch(tokio::spawn(async move {
        let mut ages: Vec<Ages> = queues.iter().map(|_| Ages::default()).collect();
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let reads = queues.iter().zip(&mut ages);
            let reads = reads.map(|(queue, ages)| read(broker.as_ref(), queue, ages));
            let queues = join_all(reads).await.into_iter().flatten().collect();
            let dead = broker.dead_letter_count().await.ok();
            *readings.lock() = Readings { queues, dead };
        }
    }))
}

/// Registers a gauge with a value for each queue.
fn observe(
    readings: &Arc<Lock<Readings>>,
    server: &Arc<[KeyValue]>,
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    value: fn(&QueueReading) -> Option<f64>,
) {
    let (readings, server) = (Arc::clone(readings), Arc::clone(server));
    CELERIAC.observe_gauge(name, unit, description, move || {
        let readings = readings.lock();
        let values = readings.queues.iter().filter_map(|reading| {
            let mut attributes = vec![KeyValue::new("messaging.destination.name", reading.queue.clone())];
            attributes.extend_from_slice(&server);
            Some((value(reading)?, attributes))
        });
        values.collect()
    });
}

/// Reads a queue; returns `None` while the broker is unreachable, which its connection logs.
async fn read(broker: &dyn Broker, queue: &str, ages: &mut Ages) -> Option<QueueReading> {
    let depth = broker.depth(queue).await.ok()?;
    let heads = broker.heads(queue).await.ok()?;
    Some(QueueReading {
        queue: queue.to_owned(),
        depth,
        oldest: ages.oldest(&heads),
    })
}

/// Times at which messages without a time were first seen at the head of a queue's lists, by hash.
#[derive(Default)]
struct Ages(HashMap<u64, Instant>);

impl Ages {
    /// Returns the age of the oldest message in `heads`, and forgets all messages that are not in `heads`.
    fn oldest(&mut self, heads: &[Vec<u8>]) -> Option<Duration> {
        let before = std::mem::take(&mut self.0);
        let ages = heads.iter().map(|raw| {
            age(raw).unwrap_or_else(|| {
                let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(raw);
                let since = before.get(&hash).copied().unwrap_or_else(Instant::now);
                self.0.insert(hash, since);
                since.elapsed()
            })
        });
        ages.max()
    }
}

/// Returns the time since a message was sent, if its delivery tag contains the time of sending.
fn age(raw: &[u8]) -> Option<Duration> {
    let message: Value = serde_json::from_slice(raw).ok()?;
    let tag = Uuid::try_parse(message["properties"]["delivery_tag"].as_str()?).ok()?;
    let (seconds, nanoseconds) = tag.get_timestamp()?.to_unix();
    let sent = Duration::new(seconds, nanoseconds);
    let now = system::now().duration_since(jiff::Timestamp::UNIX_EPOCH);
    // The sender's clock may be ahead.
    Some(Duration::try_from(now).ok()?.saturating_sub(sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: &str) -> Vec<u8> {
        format!(r#"{{"body": "", "properties": {{"delivery_tag": "{tag}"}}}}"#).into_bytes()
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_a_message_without_a_time_counts_from_the_first_reading() {
        let (first, second) = (
            tagged("bfdd5872-fa2e-40ae-9f05-f9e43e9553b6"),
            b"not json".to_vec(),
        );
        let mut ages = Ages::default();
        assert_eq!(ages.oldest(&[]), None);
        assert_eq!(ages.oldest(std::slice::from_ref(&first)), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(
            ages.oldest(&[second.clone(), first]),
            Some(Duration::from_secs(10))
        );
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ages.oldest(&[second]), Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_tag_of_this_crate_contains_the_time_of_sending() {
        let old = age(&tagged("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")).unwrap();
        let sent = Duration::from_millis(0x017f_22e2_79b0);
        let now = Duration::try_from(system::now().duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap();
        assert!(now - sent - old < Duration::from_secs(10), "{old:?}");
        let young = age(&tagged(&system::tag().to_string())).unwrap();
        assert!(young < Duration::from_secs(10), "{young:?}");
        assert_eq!(
            age(&tagged("ffffffff-ffff-7fff-bfff-ffffffffffff")),
            Some(Duration::ZERO)
        );
    }
}
