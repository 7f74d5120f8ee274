//! Tasks that are not to be run: the ids and stamps that were revoked, as every worker remembers them, and what was
//! ordered about each delivery that is held.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use crate::message::Headers;

/// Celery's own bounds: how many ids are remembered, and for how long.
const MOST_IDS: usize = 50_000;
const REMEMBERED: Duration = Duration::from_secs(3 * 3600);
/// Stamps remembered; more are refused.
const MOST_STAMPS: usize = 10_000;

/// What was revoked, oldest first.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Whether anything was ever revoked: the one thing that a task which was not has to look at.
    any: AtomicBool,
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    ids: HashMap<String, Instant>,
    /// An id that was revoked again stands here twice; the earlier entry no longer counts.
    order: VecDeque<(Instant, String)>,
    /// Stamp's name to its revoked values, as JSON texts.
    stamps: HashMap<String, HashSet<String>>,
}

impl Revoked {
    pub fn add(&self, ids: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        let mut remembered = self.remembered();
        for id in ids {
            if remembered.ids.insert(id.clone(), now) != Some(now) {
                remembered.order.push_back((now, id));
            }
        }
        remembered.forget(now);
        self.any.store(true, Ordering::Release);
    }

    /// Adds values of a stamp. False when that would be too many.
    pub fn add_stamps(&self, name: &str, values: &[Value]) -> bool {
        let mut remembered = self.remembered();
        let known: usize = remembered.stamps.values().map(HashSet::len).sum();
        if known + values.len() > MOST_STAMPS {
            return false;
        }
        let stamps = remembered.stamps.entry(name.to_owned()).or_default();
        stamps.extend(values.iter().map(Value::to_string));
        self.any.store(true, Ordering::Release);
        true
    }

    pub fn ids(&self) -> Vec<String> {
        let mut remembered = self.remembered();
        remembered.forget(Instant::now());
        let current = |(at, id): &&(Instant, String)| remembered.ids.get(id) == Some(at);
        let ids = remembered.order.iter().filter(current);
        ids.map(|(_, id)| id.clone()).collect()
    }

    /// Whether the task is not to be run.
    pub fn covers(&self, headers: &Headers) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let remembered = self.remembered();
        let by_id = remembered
            .ids
            .get(&headers.id)
            .is_some_and(|at| at.elapsed() < REMEMBERED);
        by_id
            || remembered
                .stamps
                .iter()
                .any(|(name, revoked)| stamped(headers, name, revoked))
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front() {
            let current = self.ids.get(id) == Some(at);
            if current && self.ids.len() <= MOST_IDS && now.duration_since(*at) < REMEMBERED {
                return;
            }
            if current {
                self.ids.remove(id);
            }
            self.order.pop_front();
        }
    }
}

/// Whether the task bears one of these values of a stamp.
pub(super) fn stamped(headers: &Headers, name: &str, values: &HashSet<String>) -> bool {
    match headers.stamps.get(name) {
        Some(Value::Array(borne)) => borne.iter().any(|value| values.contains(&value.to_string())),
        Some(value) => values.contains(&value.to_string()),
        None => false,
    }
}

/// What remote control has ordered about one delivery.
#[derive(Debug, Default)]
pub(super) struct Orders {
    revoked: AtomicBool,
    /// The signal that a process would have got; 0 for none.
    signal: AtomicI32,
    changed: Notify,
}

impl Orders {
    /// The task is not to be run.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// The task is to be ended although it runs.
    pub fn terminate(&self, signal: i32) {
        self.signal.store(signal, Ordering::Release);
        self.changed.notify_one();
    }

    /// The signal that it is to be ended with, if it is.
    pub fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }

    /// Resolves when the task is not to be run. Only one may wait.
    pub async fn revoked(&self) {
        while !self.revoked.load(Ordering::Acquire) {
            self.changed.notified().await;
        }
    }

    /// Resolves when the task is to be ended. Only one may wait.
    pub async fn terminated(&self) {
        while self.signal().is_none() {
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(id: &str, stamps: Value) -> Headers {
        let mut headers = Headers::new("t".to_owned(), id.to_owned());
        headers.stamps = stamps;
        headers
    }

    #[test]
    fn what_was_revoked_is_covered_and_nothing_else() {
        let revoked = Revoked::default();
        assert!(!revoked.covers(&task("a", json!({}))));
        revoked.add(["a".to_owned(), "b".to_owned()]);
        revoked.add(["a".to_owned()]);
        assert!(revoked.add_stamps("tenant", &[json!(7)]));
        assert!(revoked.covers(&task("a", json!({}))));
        assert!(!revoked.covers(&task("c", Value::Null)));
        assert!(revoked.covers(&task("c", json!({"tenant": [6, 7]}))));
        assert!(revoked.covers(&task("c", json!({"tenant": 7}))));
        assert!(!revoked.covers(&task("c", json!({"tenant": "7"}))));
        assert_eq!(revoked.ids(), ["b", "a"]);
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let revoked = Revoked::default();
        revoked.add((0..MOST_IDS + 3).map(|number| number.to_string()));
        assert_eq!(revoked.ids().len(), MOST_IDS);
        assert!(!revoked.covers(&task("2", json!({}))));
        assert!(revoked.covers(&task("3", json!({}))));
    }
}
