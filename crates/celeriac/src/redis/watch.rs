//! Waits for results. All waiters of a broker handle share one pub/sub connection. It is opened for the first
//! waiter, reconnects after an outage, and is closed when there have been no waiters for some time.
//!
//! A result may be stored before its channel is subscribed, or while the connection is broken, so the keys
//! are read too: after every subscription, after every reconnection, and every few seconds, because a dead
//! connection may go unnoticed for a long time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use redis::{Msg, aio::PubSubSink};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{commands, connection::Connection};
use crate::{
    back_off::BackOff, broker::BrokerError, failure_log::FailureLog, lock::Lock, result::ResultMeta, system,
};

/// Maximum number of results that a broker handle awaits.
const MAX_AWAITED: usize = 100_000;
/// Maximum number of channels or keys in one command.
const BATCH: usize = 500;
/// Interval at which all keys are read.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Time without waiters after which the connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(25);

/// Waits for the results of one broker handle's tasks.
pub(super) struct Watch {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

struct Shared {
    commands: Arc<Connection>,
    awaited: Lock<Awaited>,
    /// Notified when a result is added to `awaited`.
    added: Notify,
}

/// Final result, or the reason that it cannot be read.
type Ended = Result<ResultMeta, BrokerError>;

#[derive(Default)]
struct Awaited {
    /// Senders to the waiters, by task id. The next poll removes the senders without waiters.
    results: HashMap<String, watch::Sender<Option<Ended>>, system::HashState>,
    /// Ids added since the last subscription.
    to_subscribe: Vec<String>,
    /// Whether the task that watches the results is running.
    running: bool,
}

impl Awaited {
    fn remove_abandoned(&mut self) {
        self.results.retain(|_, result| result.receiver_count() > 0);
        self.to_subscribe.retain(|id| self.results.contains_key(id));
    }
}

impl Watch {
    pub(super) fn new(commands: Arc<Connection>) -> Self {
        let stop = CancellationToken::new();
        Self {
            shared: Arc::new(Shared {
                commands,
                awaited: Lock::default(),
                added: Notify::new(),
            }),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Waits for the final result of a task.
    pub(super) async fn final_result(&self, id: &str) -> Result<ResultMeta, BrokerError> {
        let mut result = self.register(id)?;
        let ended = result.wait_for(Option::is_some).await;
        let meta = ended.ok().and_then(|meta| meta.clone());
        meta.unwrap_or_else(|| Err(BrokerError::unavailable("the broker handle was dropped")))
    }

    fn register(&self, id: &str) -> Result<watch::Receiver<Option<Ended>>, BrokerError> {
        let mut awaited = self.shared.awaited.lock();
        if let Some(result) = awaited.results.get(id) {
            return Ok(result.subscribe());
        }
        if awaited.results.len() >= MAX_AWAITED {
            awaited.remove_abandoned();
        }
        if awaited.results.len() >= MAX_AWAITED {
            return Err(BrokerError::Refused {
                cause: format!("{MAX_AWAITED} results are already awaited, which is the maximum"),
            });
        }
        let (sender, receiver) = watch::channel(None);
        awaited.results.insert(id.to_owned(), sender);
        awaited.to_subscribe.push(id.to_owned());
        if !std::mem::replace(&mut awaited.running, true) {
            let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(run(shared)).await });
        }
        drop(awaited);
        self.shared.added.notify_one();
        Ok(receiver)
    }
}

impl Shared {
    /// Sends a final result of the task `id`, or the reason that its result cannot be read, to all waiters.
    fn deliver(&self, id: &str, raw: &[u8]) {
        let ended = match ResultMeta::read(raw) {
            Ok(meta) if !meta.status.is_final() => return,
            Ok(meta) => Ok(ResultMeta {
                task_id: id.into(),
                ..meta
            }),
            Err(cause) => Err(BrokerError::Unreadable { cause }),
        };
        if let Some(waiters) = self.awaited.lock().results.remove(id) {
            waiters.send_replace(Some(ended));
        }
    }

    /// Reads the keys of these tasks.
    async fn poll(&self, ids: &[String]) -> Result<(), BrokerError> {
        for ids in ids.chunks(BATCH) {
            let results: Vec<Option<Vec<u8>>> =
                self.commands.command(commands::MGET, self.channels(ids)).await?;
            for (id, raw) in ids.iter().zip(results) {
                if let Some(raw) = raw {
                    self.deliver(id, &raw);
                }
            }
        }
        Ok(())
    }

    fn channels(&self, ids: &[String]) -> Vec<String> {
        ids.iter().map(|id| self.commands.names.result(id)).collect()
    }

    fn all(&self) -> Vec<String> {
        let mut awaited = self.awaited.lock();
        awaited.remove_abandoned();
        awaited.results.keys().cloned().collect()
    }

    /// Marks the watching task as stopped if there are no waiters; the next waiter then starts a new one.
    /// Returns whether the task has to stop.
    fn stop_if_idle(&self) -> bool {
        let mut awaited = self.awaited.lock();
        awaited.remove_abandoned();
        awaited.running = !awaited.results.is_empty();
        !awaited.running
    }
}

async fn run(shared: Arc<Shared>) {
    let mut back_off = BackOff::default();
    let mut failures = FailureLog::new("watching results");
    loop {
        let mut connected = || {
            failures.worked();
            back_off.reset();
        };
        match session(&shared, &mut connected).await {
            Ok(()) => return,
            Err(error) => {
                failures.failed(&error);
                back_off.wait().await;
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
    let mut subscribed = HashSet::default();
    {
        let mut awaited = shared.awaited.lock();
        awaited.to_subscribe = awaited.results.keys().cloned().collect();
    }
    let mut polls = interval_at(Instant::now() + POLL_INTERVAL, POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle_since = Instant::now();
    let deliver = |message: &Msg| {
        if let Some(id) = shared.commands.names.task_of(message.get_channel_name()) {
            shared.deliver(id, message.get_payload_bytes());
        }
    };
    loop {
        subscribe(shared, &mut sink, &mut subscribed).await?;
        unsubscribe(shared, &mut sink, &mut subscribed).await?;
        connected();
        if !shared.awaited.lock().results.is_empty() {
            idle_since = Instant::now();
        }
        tokio::select! {
            biased;
            _ = polls.tick() => {
                shared.poll(&shared.all()).await?;
                if idle_since.elapsed() >= IDLE_TIMEOUT && shared.stop_if_idle() {
                    return Ok(());
                }
            }
            message = messages.next() => {
                let Some(message) = message else {
                    return Err(BrokerError::unavailable("the connection was closed"));
                };
                deliver(&message);
                // Results arrive in bursts. If the connection has closed, the next iteration notices.
                for _ in 0..BATCH {
                    match messages.next().now_or_never() {
                        Some(Some(message)) => deliver(&message),
                        _ => break,
                    }
                }
            }
            () = shared.added.notified() => {}
        }
    }
}

/// Subscribes to newly awaited results, and reads the results that are already stored.
async fn subscribe(
    shared: &Shared,
    sink: &mut PubSubSink,
    subscribed: &mut HashSet<String, system::HashState>,
) -> Result<(), BrokerError> {
    let new_ids = std::mem::take(&mut shared.awaited.lock().to_subscribe);
    let unknown = new_ids.iter().filter(|id| subscribed.insert(String::clone(id)));
    let unknown: Vec<String> = unknown.cloned().collect();
    for ids in unknown.chunks(BATCH) {
        shared
            .commands
            .confirmed(sink.subscribe(shared.channels(ids)))
            .await?;
    }
    shared.poll(&new_ids).await
}

/// Unsubscribes from the results that are no longer awaited, once there are many of them: the channel of a
/// finished task carries no messages.
async fn unsubscribe(
    shared: &Shared,
    sink: &mut PubSubSink,
    subscribed: &mut HashSet<String, system::HashState>,
) -> Result<(), BrokerError> {
    let old_ids: Vec<String> = {
        let awaited = shared.awaited.lock();
        if subscribed.len() < 2 * awaited.results.len() + BATCH {
            return Ok(());
        }
        subscribed
            .extract_if(|id| !awaited.results.contains_key(id))
            .collect()
    };
    for ids in old_ids.chunks(BATCH) {
        shared
            .commands
            .confirmed(sink.unsubscribe(shared.channels(ids)))
            .await?;
    }
    Ok(())
}
