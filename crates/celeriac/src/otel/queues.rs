//! Gauges of queues and of the dead-letter list, read every ten seconds: waiting and reserved messages, the
//! age of the oldest message, and dead letters.
//!
//! Messages have no timestamp. The delivery tags of this crate are UUIDs of version 7, which contain the time
//! of sending; tags of Python clients do not. For a message without a time, the reported age is the time
//! since the message was first seen at the head of its list, which is a lower bound.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use serde::Deserialize;
use telemetry::KeyValue;
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use uuid::Uuid;

use super::{
    message::{CELERIAC, SYSTEM},
    names::metric,
};
use crate::{broker::Broker, system};

const READ_INTERVAL: Duration = Duration::from_secs(10);

/// Guard that keeps the gauges of queues up to date until dropped.
#[derive(Debug)]
pub struct QueueWatch(JoinHandle<()>);

impl Drop for QueueWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A snapshot of a queue.
#[derive(Clone)]
struct QueueDepth {
    queue: String,
    waiting: u64,
    unacknowledged: u64,
    /// Age of the oldest waiting message.
    oldest: Option<Duration>,
}

#[derive(Default)]
struct Seen {
    depths: Vec<QueueDepth>,
    dead: Option<u64>,
}

pub(super) fn watch(broker: Arc<dyn Broker>, queues: Vec<String>) -> QueueWatch {
    let seen: Arc<Mutex<Seen>> = Arc::default();
    observe(
        &seen,
        metric::CELERY_QUEUE_WAITING,
        "{message}",
        "Messages waiting in the queue.",
        |queue| Some(queue.waiting as f64),
    );
    observe(
        &seen,
        metric::CELERY_QUEUE_UNACKNOWLEDGED,
        "{message}",
        "Messages delivered from the queue and not yet acknowledged.",
        |queue| Some(queue.unacknowledged as f64),
    );
    observe(
        &seen,
        metric::CELERY_QUEUE_OLDEST_AGE,
        "s",
        "Age of the oldest waiting message.",
        |queue| Some(queue.oldest?.as_secs_f64()),
    );
    let reported = Arc::clone(&seen);
    CELERIAC.observe_gauge(
        metric::CELERY_DEAD_LETTERS,
        "{message}",
        "Messages in the dead-letter list.",
        move || {
            let system = vec![KeyValue::new("messaging.system", SYSTEM)];
            let dead = lock(&reported).dead;
            dead.map(|dead| (dead as f64, system)).into_iter().collect()
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
            let depths = join_all(reads).await.into_iter().flatten().collect();
            let dead = broker.dead_letter_count().await.ok();
            *lock(&seen) = Seen { depths, dead };
        }
    }))
}

/// Registers a gauge with a value for each queue.
fn observe(
    seen: &Arc<Mutex<Seen>>,
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    value: fn(&QueueDepth) -> Option<f64>,
) {
    let seen = Arc::clone(seen);
    CELERIAC.observe_gauge(name, unit, description, move || {
        let seen = lock(&seen);
        let values = seen.depths.iter().filter_map(|depth| {
            let queue = KeyValue::new("messaging.destination.name", depth.queue.clone());
            Some((value(depth)?, vec![queue]))
        });
        values.collect()
    });
}

async fn read(broker: &dyn Broker, queue: &str, ages: &mut Ages) -> Option<QueueDepth> {
    // The connection logs outages.
    let depth = broker.depth(queue).await.ok()?;
    let heads = broker.heads(queue).await.ok()?;
    Some(QueueDepth {
        queue: queue.to_owned(),
        waiting: depth.waiting,
        unacknowledged: depth.unacked,
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
                let mut hasher = DefaultHasher::new();
                raw.hash(&mut hasher);
                let hash = hasher.finish();
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
    #[derive(Deserialize)]
    struct Tagged {
        properties: Tag,
    }
    #[derive(Deserialize)]
    struct Tag {
        delivery_tag: String,
    }
    let tagged: Tagged = serde_json::from_slice(raw).ok()?;
    let tag = Uuid::try_parse(&tagged.properties.delivery_tag).ok()?;
    let (seconds, nanoseconds) = tag.get_timestamp()?.to_unix();
    let sent = Duration::new(seconds, nanoseconds);
    let now = system::now().duration_since(jiff::Timestamp::UNIX_EPOCH);
    // The sender's clock may be ahead.
    Some(Duration::try_from(now).ok()?.saturating_sub(sent))
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
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
