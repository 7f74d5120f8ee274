//! Waiting for results. All who wait on one broker handle share one pub/sub connection: it is opened for the first
//! of them, comes back after an outage, and is closed some time after the last has gone.
//!
//! A result may be stored before its channel is subscribed, or while the connection is away, so the keys themselves
//! are looked at after every subscription, after every reconnection, and every few seconds: a connection can be dead
//! for long without saying so.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use redis::{Msg, aio::PubSubSink, cmd};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{commands, connection::Connection, names};
use crate::{backoff::Backoff, broker::BrokerError, log::debug, result::ResultMeta, streak::Streak};

/// Results that can be waited for at a time on one broker handle.
const MOST_WAITERS: usize = 100_000;
/// Channels or keys named in one command.
const BATCH: usize = 500;
/// How often all keys are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long the connection is kept when nobody waits.
const IDLE: Duration = Duration::from_secs(30);

/// The results that are waited for.
pub(super) struct Watch {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _stops_when_dropped: DropGuard,
}

struct Shared {
    commands: Arc<Connection>,
    response_timeout: Duration,
    state: Mutex<State>,
    /// Someone has begun to wait.
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiters: HashMap<String, Vec<Waiter>>,
    count: usize,
    next: u64,
    /// Ids that were not waited for before, and ids that may not be any more.
    fresh: Vec<String>,
    stale: Vec<String>,
    running: bool,
}

struct Waiter {
    number: u64,
    ended: oneshot::Sender<ResultMeta>,
}

impl Watch {
    pub fn new(commands: Arc<Connection>, response_timeout: Duration) -> Self {
        let stop = CancellationToken::new();
        Self {
            shared: Arc::new(Shared {
                commands,
                response_timeout,
                state: Mutex::default(),
                changed: Notify::new(),
            }),
            _stops_when_dropped: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Waits for the task's final result.
    pub async fn ended(&self, id: &str) -> Result<ResultMeta, BrokerError> {
        let (ended, end) = oneshot::channel();
        let _waiting = self.register(id, ended)?;
        end.await.map_err(|_| BrokerError::Unavailable {
            cause: "results are not watched any more".to_owned(),
        })
    }

    fn register(&self, id: &str, ended: oneshot::Sender<ResultMeta>) -> Result<Waiting<'_>, BrokerError> {
        let mut state = self.shared.state();
        if state.count >= MOST_WAITERS {
            return Err(BrokerError::Refused {
                cause: format!("{MOST_WAITERS} results are waited for already"),
            });
        }
        let number = state.next;
        state.next += 1;
        state.count += 1;
        let waiters = state.waiters.entry(id.to_owned()).or_default();
        let first = waiters.is_empty();
        waiters.push(Waiter { number, ended });
        if first {
            state.fresh.push(id.to_owned());
        }
        if !std::mem::replace(&mut state.running, true) {
            let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(run(shared)).await });
        }
        drop(state);
        self.shared.changed.notify_one();
        Ok(Waiting {
            shared: &self.shared,
            id: id.to_owned(),
            number,
        })
    }
}

/// Ceases to wait when dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    id: String,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let Some(waiters) = state.waiters.get_mut(&self.id) else {
            return;
        };
        let before = waiters.len();
        waiters.retain(|waiter| waiter.number != self.number);
        let gone = before - waiters.len();
        let last = waiters.is_empty();
        state.count -= gone;
        if last {
            state.waiters.remove(&self.id);
            state.stale.push(std::mem::take(&mut self.id));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a final result to all who wait for it.
    fn deliver(&self, meta: &ResultMeta) {
        if !meta.status.is_final() {
            return;
        }
        let mut state = self.state();
        if let Some(waiters) = state.waiters.remove(&meta.task_id) {
            state.count -= waiters.len();
            state.stale.push(meta.task_id.clone());
            drop(state);
            for waiter in waiters {
                // It may have gone away, which is its right.
                let _ = waiter.ended.send(meta.clone());
            }
        }
    }

    /// Looks at the keys of these tasks.
    async fn look(&self, ids: &[String]) -> Result<(), BrokerError> {
        for ids in ids.chunks(BATCH) {
            let mut get = cmd("MGET");
            for id in ids {
                get.arg(names::result(id));
            }
            let results: Vec<Option<Vec<u8>>> = self.commands.command(commands::MGET, &get).await?;
            for (id, raw) in ids.iter().zip(results) {
                match raw.map(|raw| ResultMeta::decode(&raw)) {
                    Some(Some(meta)) => self.deliver(&ResultMeta {
                        task_id: id.clone(),
                        ..meta
                    }),
                    Some(None) => debug!(task_id = id, "a stored result cannot be read"),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn all(&self) -> Vec<String> {
        self.state().waiters.keys().cloned().collect()
    }

    /// Whether nobody waits; if so, the next who does starts anew.
    fn retire(&self) -> bool {
        let mut state = self.state();
        if !state.waiters.is_empty() {
            return false;
        }
        state.running = false;
        state.fresh.clear();
        state.stale.clear();
        true
    }
}

async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut streak = Streak::new("watching results");
    loop {
        let mut connected = || {
            streak.worked();
            backoff.reset();
        };
        match session(&shared, &mut connected).await {
            Ok(()) => return,
            Err(error) => {
                streak.failed(&error);
                backoff.wait().await;
                if shared.retire() {
                    return;
                }
            }
        }
    }
}

/// One connection, until it breaks or nobody needs it any more.
async fn session(shared: &Shared, connected: &mut impl FnMut()) -> Result<(), BrokerError> {
    let (mut sink, mut messages) = shared.commands.subscriber().await?.split();
    let mut subscribed = HashSet::new();
    {
        let mut state = shared.state();
        state.fresh = state.waiters.keys().cloned().collect();
    }
    let mut looks = interval_at(Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle_since = Instant::now();
    loop {
        subscribe(shared, &mut sink, &mut subscribed).await?;
        unsubscribe(shared, &mut sink, &mut subscribed).await?;
        connected();
        if !shared.state().waiters.is_empty() {
            idle_since = Instant::now();
        }
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else {
                    return Err(BrokerError::Unavailable { cause: "the connection was closed".to_owned() });
                };
                announced(shared, &message);
                // Results come in crowds. What has closed the connection meanwhile is seen in the next round.
                for _ in 0..BATCH {
                    match messages.next().now_or_never() {
                        Some(Some(message)) => announced(shared, &message),
                        _ => break,
                    }
                }
            }
            () = shared.changed.notified() => {}
            _ = looks.tick() => {
                shared.look(&shared.all()).await?;
                if idle_since.elapsed() >= IDLE && shared.retire() {
                    return Ok(());
                }
            }
        }
    }
}

fn announced(shared: &Shared, message: &Msg) {
    if let Some(meta) = ResultMeta::decode(message.get_payload_bytes()) {
        shared.deliver(&meta);
    }
}

/// Subscribes to what is waited for now, and looks whether it is there already.
async fn subscribe(
    shared: &Shared,
    sink: &mut PubSubSink,
    subscribed: &mut HashSet<String>,
) -> Result<(), BrokerError> {
    let fresh: Vec<String> = {
        let mut state = shared.state();
        let fresh = std::mem::take(&mut state.fresh);
        fresh
            .into_iter()
            .filter(|id| state.waiters.contains_key(id))
            .collect()
    };
    let unknown: Vec<String> = fresh
        .iter()
        .filter(|id| subscribed.insert(String::clone(id)))
        .cloned()
        .collect();
    for ids in unknown.chunks(BATCH) {
        answered(shared, sink.subscribe(channels(ids))).await?;
    }
    shared.look(&fresh).await
}

/// Leaves the channels that nobody waits for any more, many at a time: a channel whose task has ended is silent.
async fn unsubscribe(
    shared: &Shared,
    sink: &mut PubSubSink,
    subscribed: &mut HashSet<String>,
) -> Result<(), BrokerError> {
    let stale: Vec<String> = {
        let mut state = shared.state();
        if state.stale.len() < BATCH {
            return Ok(());
        }
        let stale = std::mem::take(&mut state.stale);
        stale
            .into_iter()
            .filter(|id| !state.waiters.contains_key(id))
            .collect()
    };
    let known: Vec<String> = stale.into_iter().filter(|id| subscribed.remove(id)).collect();
    for ids in known.chunks(BATCH) {
        answered(shared, sink.unsubscribe(channels(ids))).await?;
    }
    Ok(())
}

fn channels(ids: &[String]) -> Vec<String> {
    ids.iter().map(|id| names::result(id)).collect()
}

async fn answered(
    shared: &Shared,
    command: impl Future<Output = redis::RedisResult<()>>,
) -> Result<(), BrokerError> {
    let cause = match timeout(shared.response_timeout, command).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "subscribing took too long".to_owned(),
    };
    Err(BrokerError::Unavailable { cause })
}
