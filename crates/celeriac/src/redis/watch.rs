//! Waits for results. All waiters of a broker handle share one pub/sub connection. It is opened for the first
//! waiter, reconnects after an outage, and is closed some time after the last waiter has left.
//!
//! A result may be stored before its channel is subscribed, or while the connection is broken, so the keys
//! are read too: after every subscription, after every reconnection, and every few seconds, since a dead
//! connection may go unnoticed for a long time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use redis::{Msg, aio::PubSubSink};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{commands, connection::Connection, names};
use crate::{
    backoff::Backoff, broker::BrokerError, failure_log::FailureLog, lock::Lock, log::debug,
    result::ResultMeta,
};

/// Maximum number of waiters of a broker handle.
const MAX_WAITERS: usize = 100_000;
/// Maximum number of channels or keys in one command.
const BATCH: usize = 500;
/// Interval at which all keys are read.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Time without waiters after which the connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Waiters for results of one broker handle.
pub(super) struct Watch {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

struct Shared {
    commands: Arc<Connection>,
    waiters: Lock<Waiters>,
    /// Notified when a waiter is added.
    changed: Notify,
}

#[derive(Default)]
struct Waiters {
    by_id: HashMap<String, Vec<Waiter>>,
    count: usize,
    next: u64,
    /// Ids whose first waiter was added.
    to_subscribe: Vec<String>,
    /// Ids that may have no waiters left.
    to_unsubscribe: Vec<String>,
    running: bool,
}

struct Waiter {
    number: u64,
    sender: oneshot::Sender<ResultMeta>,
}

impl Watch {
    pub(super) fn new(commands: Arc<Connection>) -> Self {
        let stop = CancellationToken::new();
        Self {
            shared: Arc::new(Shared {
                commands,
                waiters: Lock::default(),
                changed: Notify::new(),
            }),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Waits for the final result of a task.
    pub(super) async fn final_result(&self, id: &str) -> Result<ResultMeta, BrokerError> {
        let (sender, result) = oneshot::channel();
        let _guard = self.register(id, sender)?;
        result.await.map_err(|_| BrokerError::Unavailable {
            cause: "the broker handle was dropped".to_owned(),
        })
    }

    fn register(
        &self,
        id: &str,
        sender: oneshot::Sender<ResultMeta>,
    ) -> Result<WaiterGuard<'_>, BrokerError> {
        let mut all = self.shared.waiters.lock();
        if all.count >= MAX_WAITERS {
            return Err(BrokerError::Refused {
                cause: format!("{MAX_WAITERS} results are already awaited, the maximum"),
            });
        }
        let number = all.next;
        all.next += 1;
        all.count += 1;
        let waiters = all.by_id.entry(id.to_owned()).or_default();
        let first = waiters.is_empty();
        waiters.push(Waiter { number, sender });
        if first {
            all.to_subscribe.push(id.to_owned());
        }
        if !std::mem::replace(&mut all.running, true) {
            let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(run(shared)).await });
        }
        drop(all);
        self.shared.changed.notify_one();
        Ok(WaiterGuard {
            shared: &self.shared,
            id: id.to_owned(),
            number,
        })
    }
}

/// Removes its waiter when dropped.
struct WaiterGuard<'a> {
    shared: &'a Shared,
    id: String,
    number: u64,
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        let mut all = self.shared.waiters.lock();
        let Some(waiters) = all.by_id.get_mut(&self.id) else {
            return;
        };
        let before = waiters.len();
        waiters.retain(|waiter| waiter.number != self.number);
        let removed = before - waiters.len();
        let last = waiters.is_empty();
        all.count -= removed;
        if last {
            all.by_id.remove(&self.id);
            all.to_unsubscribe.push(std::mem::take(&mut self.id));
        }
    }
}

impl Shared {
    /// Sends a final result to all its waiters.
    fn deliver(&self, meta: &ResultMeta) {
        if !meta.status.is_final() {
            return;
        }
        let mut all = self.waiters.lock();
        if let Some(waiters) = all.by_id.remove(meta.task_id.as_str()) {
            all.count -= waiters.len();
            all.to_unsubscribe.push(meta.task_id.to_string());
            drop(all);
            for waiter in waiters {
                // The waiter may have been dropped.
                let _ = waiter.sender.send(meta.clone());
            }
        }
    }

    /// Reads the keys of these tasks.
    async fn poll(&self, ids: &[String]) -> Result<(), BrokerError> {
        for ids in ids.chunks(BATCH) {
            let results: Vec<Option<Vec<u8>>> = self.commands.command(commands::MGET, channels(ids)).await?;
            for (id, raw) in ids.iter().zip(results) {
                match raw.map(|raw| ResultMeta::decode(&raw)) {
                    Some(Some(meta)) => self.deliver(&ResultMeta {
                        task_id: id.as_str().into(),
                        ..meta
                    }),
                    Some(None) => debug!(task_id = id, "ignored a stored result that cannot be decoded"),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn all(&self) -> Vec<String> {
        self.waiters.lock().by_id.keys().cloned().collect()
    }

    /// Marks the task as stopped if there are no waiters, so that the next waiter starts a new one. Returns
    /// whether it did.
    fn stop_if_idle(&self) -> bool {
        let mut all = self.waiters.lock();
        if !all.by_id.is_empty() {
            return false;
        }
        all.running = false;
        all.to_subscribe.clear();
        all.to_unsubscribe.clear();
        true
    }
}

async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut failures = FailureLog::new("watching results");
    loop {
        let mut connected = || {
            failures.worked();
            backoff.reset();
        };
        match session(&shared, &mut connected).await {
            Ok(()) => return,
            Err(error) => {
                failures.failed(&error);
                backoff.wait().await;
                if shared.stop_if_idle() {
                    return;
                }
            }
        }
    }
}

/// Serves one connection until it breaks or has been idle for too long.
async fn session(shared: &Shared, connected: &mut impl FnMut()) -> Result<(), BrokerError> {
    let (mut sink, mut messages) = shared.commands.subscriber().await?.split();
    let mut subscribed = HashSet::new();
    {
        let mut all = shared.waiters.lock();
        all.to_subscribe = all.by_id.keys().cloned().collect();
    }
    let mut polls = interval_at(Instant::now() + POLL_INTERVAL, POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle_since = Instant::now();
    loop {
        subscribe(shared, &mut sink, &mut subscribed).await?;
        unsubscribe(shared, &mut sink, &mut subscribed).await?;
        connected();
        if !shared.waiters.lock().by_id.is_empty() {
            idle_since = Instant::now();
        }
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else {
                    return Err(BrokerError::Unavailable { cause: "the connection was closed".to_owned() });
                };
                deliver_message(shared, &message);
                // Results arrive in bursts. If the connection has closed, the next iteration notices.
                for _ in 0..BATCH {
                    match messages.next().now_or_never() {
                        Some(Some(message)) => deliver_message(shared, &message),
                        _ => break,
                    }
                }
            }
            () = shared.changed.notified() => {}
            _ = polls.tick() => {
                shared.poll(&shared.all()).await?;
                if idle_since.elapsed() >= IDLE_TIMEOUT && shared.stop_if_idle() {
                    return Ok(());
                }
            }
        }
    }
}

fn deliver_message(shared: &Shared, message: &Msg) {
    if let Some(meta) = ResultMeta::decode(message.get_payload_bytes()) {
        shared.deliver(&meta);
    }
}

/// Subscribes to the results of new waiters and reads those that are there already.
async fn subscribe(
    shared: &Shared,
    sink: &mut PubSubSink,
    subscribed: &mut HashSet<String>,
) -> Result<(), BrokerError> {
    let new_ids: Vec<String> = {
        let mut all = shared.waiters.lock();
        let new_ids = std::mem::take(&mut all.to_subscribe);
        new_ids
            .into_iter()
            .filter(|id| all.by_id.contains_key(id))
            .collect()
    };
    let unknown: Vec<String> = new_ids
        .iter()
        .filter(|id| subscribed.insert(String::clone(id)))
        .cloned()
        .collect();
    for ids in unknown.chunks(BATCH) {
        shared.commands.confirmed(sink.subscribe(channels(ids))).await?;
    }
    shared.poll(&new_ids).await
}

/// Unsubscribes from channels without waiters, many at a time: the channel of a finished task carries no
/// messages.
async fn unsubscribe(
    shared: &Shared,
    sink: &mut PubSubSink,
    subscribed: &mut HashSet<String>,
) -> Result<(), BrokerError> {
    let old_ids: Vec<String> = {
        let mut all = shared.waiters.lock();
        if all.to_unsubscribe.len() < BATCH {
            return Ok(());
        }
        let old_ids = std::mem::take(&mut all.to_unsubscribe);
        old_ids
            .into_iter()
            .filter(|id| !all.by_id.contains_key(id))
            .collect()
    };
    let known: Vec<String> = old_ids.into_iter().filter(|id| subscribed.remove(id)).collect();
    for ids in known.chunks(BATCH) {
        shared.commands.confirmed(sink.unsubscribe(channels(ids))).await?;
    }
    Ok(())
}

fn channels(ids: &[String]) -> Vec<String> {
    ids.iter().map(|id| names::result(id)).collect()
}
