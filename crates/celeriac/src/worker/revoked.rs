//! Revoked tasks: the ids and stamps that the worker remembers, and remote control's orders for each held
//! delivery.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use crate::{lock::Lock, message::Headers};

/// Maximum number of remembered ids, as in Celery.
const MAX_IDS: usize = 50_000;
/// Time for which an id is remembered, as in Celery.
const RETENTION: Duration = Duration::from_secs(3 * 3600);
/// Maximum number of remembered stamp values; further values are rejected.
const MAX_STAMPS: usize = 10_000;

/// Values of stamps by name, encoded as JSON.
pub(super) type Stamps = HashMap<String, HashSet<String>>;

/// Revoked ids and stamps.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Whether anything was ever revoked. Until then, tasks read only this flag.
    any: AtomicBool,
    remembered: Lock<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    ids: HashMap<String, Instant>,
    /// Ids by time, oldest first. An id that was revoked again occurs twice; its earlier entry is obsolete.
    order: VecDeque<(Instant, String)>,
    stamps: Stamps,
}

impl Revoked {
    pub(super) fn add(&self, ids: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        let mut remembered = self.remembered.lock();
        for id in ids {
            if remembered.ids.insert(id.clone(), now) != Some(now) {
                remembered.order.push_back((now, id));
            }
        }
        remembered.forget(now);
        self.any.store(true, Ordering::Release);
    }

    /// Adds stamps. Returns false, and adds none, if there would be too many.
    pub(super) fn add_stamps(&self, stamps: &Stamps) -> bool {
        let known = &mut self.remembered.lock().stamps;
        let count = |stamps: &Stamps| stamps.values().map(HashSet::len).sum::<usize>();
        if count(known) + count(stamps) > MAX_STAMPS {
            return false;
        }
        for (name, values) in stamps {
            let known = known.entry(name.clone()).or_default();
            known.extend(values.iter().cloned());
        }
        self.any.store(true, Ordering::Release);
        true
    }

    pub(super) fn ids(&self) -> Vec<String> {
        let mut remembered = self.remembered.lock();
        remembered.forget(Instant::now());
        let current = |(at, id): &&(Instant, String)| remembered.ids.get(id) == Some(at);
        let ids = remembered.order.iter().filter(current);
        ids.map(|(_, id)| id.clone()).collect()
    }

    /// Returns whether the task is revoked, by its id or by a stamp.
    pub(super) fn contains(&self, headers: &Headers) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let remembered = self.remembered.lock();
        let revoked_at = remembered.ids.get(headers.id.as_str());
        revoked_at.is_some_and(|at| at.elapsed() < RETENTION) || has_stamp(headers, &remembered.stamps)
    }
}

impl Remembered {
    fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front() {
            let current = self.ids.get(id) == Some(at);
            if current && self.ids.len() <= MAX_IDS && now.duration_since(*at) < RETENTION {
                return;
            }
            if current {
                self.ids.remove(id);
            }
            self.order.pop_front();
        }
    }
}

/// Returns whether the task has one of these stamps.
pub(super) fn has_stamp(headers: &Headers, stamps: &Stamps) -> bool {
    stamps
        .iter()
        .any(|(name, values)| match headers.stamps.get(name) {
            Some(Value::Array(own)) => own.iter().any(|value| values.contains(&value.to_string())),
            Some(value) => values.contains(&value.to_string()),
            None => false,
        })
}

/// Event that keeps a task from starting or running on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    /// The task must not start.
    Revoked,
    /// The running task must end.
    Terminated,
    /// Another worker has taken over the delivery.
    Lost,
}

/// Orders for one delivery: remote control's, and the one to let go of a delivery that another worker has
/// taken over.
#[derive(Debug, Default)]
pub(super) struct Orders {
    revoked: AtomicBool,
    lost: AtomicBool,
    /// Signal to terminate with, as a process would receive it; 0 for none.
    signal: AtomicI32,
    changed: Notify,
}

impl Orders {
    /// Prevents the task from starting.
    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Terminates the task even if it is running.
    pub(super) fn terminate(&self, signal: i32) {
        self.signal.store(signal, Ordering::Release);
        self.changed.notify_one();
    }

    /// Returns the signal to terminate the task with, if termination was ordered.
    pub(super) fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }

    /// Lets go of the delivery, which another worker has taken over.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Resolves once a task that has not started is revoked or lost. Supports a single waiter.
    pub(super) async fn before_start(&self) -> Interruption {
        loop {
            if self.lost.load(Ordering::Acquire) {
                return Interruption::Lost;
            }
            if self.revoked.load(Ordering::Acquire) {
                return Interruption::Revoked;
            }
            self.changed.notified().await;
        }
    }

    /// Resolves once a running task is terminated or, if `unless_lost`, lost. Supports a single waiter.
    pub(super) async fn while_running(&self, unless_lost: bool) -> Interruption {
        loop {
            if unless_lost && self.lost.load(Ordering::Acquire) {
                return Interruption::Lost;
            }
            if self.signal().is_some() {
                return Interruption::Terminated;
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(id: &str, stamps: Value) -> Headers {
        let mut headers = Headers::new("t".to_owned(), id.into());
        headers.stamps = stamps;
        headers
    }

    #[test]
    fn only_revoked_ids_and_stamps_are_contained() {
        let revoked = Revoked::default();
        assert!(!revoked.contains(&task("a", json!({}))));
        revoked.add(["a".to_owned(), "b".to_owned()]);
        revoked.add(["a".to_owned()]);
        let stamps = Stamps::from([("tenant".to_owned(), HashSet::from(["7".to_owned()]))]);
        assert!(revoked.add_stamps(&stamps));
        assert!(revoked.contains(&task("a", json!({}))));
        assert!(!revoked.contains(&task("c", Value::Null)));
        assert!(revoked.contains(&task("c", json!({"tenant": [6, 7]}))));
        assert!(revoked.contains(&task("c", json!({"tenant": 7}))));
        assert!(!revoked.contains(&task("c", json!({"tenant": "7"}))));
        assert_eq!(revoked.ids(), ["b", "a"]);
    }

    #[test]
    fn the_oldest_ids_are_forgotten_when_there_are_too_many() {
        let revoked = Revoked::default();
        revoked.add((0..MAX_IDS + 3).map(|number| number.to_string()));
        assert_eq!(revoked.ids().len(), MAX_IDS);
        assert!(!revoked.contains(&task("2", json!({}))));
        assert!(revoked.contains(&task("3", json!({}))));
    }
}
