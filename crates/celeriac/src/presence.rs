//! Which workers are alive, of whatever language: listens to their heartbeats. A worker counts while its last
//! heartbeat is fresh, by this process' own clock, so that clocks need not agree.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{task::JoinHandle, time::Instant};
use tracing::debug;

use crate::{
    backoff::Backoff,
    broker::Broker,
    event::{self, Event},
    streak::Streak,
};

/// Celery workers and ours send a heartbeat every two seconds; four may get lost.
const FRESH: Duration = Duration::from_secs(10);
/// Workers remembered; more are not counted.
const MOST_WORKERS: usize = 4096;

/// Watches workers until it is dropped.
#[derive(Debug)]
pub struct Presence {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    watcher: JoinHandle<()>,
}

impl Presence {
    /// Watches the workers of this broker in the background, reconnecting as long as it takes.
    #[must_use]
    pub fn watch(broker: Arc<dyn Broker>) -> Self {
        let seen = Arc::default();
        let watcher = tokio::spawn(watch(broker, Arc::clone(&seen)));
        Self { seen, watcher }
    }

    /// How many workers have shown themselves within the last ten seconds and not said goodbye.
    #[must_use]
    pub fn workers_alive(&self) -> usize {
        lock(&self.seen)
            .values()
            .filter(|seen| seen.elapsed() < FRESH)
            .count()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn watch(broker: Arc<dyn Broker>, seen: Arc<Mutex<HashMap<String, Instant>>>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut streak = Streak::new("watching workers");
    loop {
        match broker.listen(event::EXCHANGE, "worker.*").await {
            Ok(mut events) => {
                streak.worked();
                backoff.reset();
                while let Some(raw) = events.next().await {
                    for event in Event::decode(&raw) {
                        note(&mut lock(&seen), event);
                    }
                }
                debug!("the stream of worker events has ended");
            }
            Err(error) => streak.failed(&error),
        }
        backoff.wait().await;
    }
}

fn note(seen: &mut HashMap<String, Instant>, event: Event) {
    if event.kind == "worker-offline" {
        seen.remove(&event.hostname);
        return;
    }
    if seen.len() >= MOST_WORKERS {
        seen.retain(|_, last| last.elapsed() < FRESH);
    }
    if seen.len() < MOST_WORKERS || seen.contains_key(&event.hostname) {
        seen.insert(event.hostname, Instant::now());
    }
}

fn lock(seen: &Mutex<HashMap<String, Instant>>) -> MutexGuard<'_, HashMap<String, Instant>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
