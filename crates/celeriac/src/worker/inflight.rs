//! The deliveries a worker holds: waiting for their time, waiting for a slot, or running. What is in here is what
//! leases are renewed for, and what a shutdown gives back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::revoked::Orders;
use crate::{
    broker::{Delivery, DeliveryTag},
    system,
};

/// Tasks with a time in the future that are held at most, AMQP's largest prefetch count. While there are as many,
/// nothing is received.
const MOST_DEFERRED: usize = 65_535;

#[derive(Debug, Default)]
pub(super) struct Inflight {
    entries: Mutex<HashMap<DeliveryTag, Arc<Entry>>>,
    arrivals: AtomicU64,
    deferred: AtomicUsize,
    /// A task has begun, ended, or turned out to be due later: there may be room.
    pub moved: Notify,
}

/// One held delivery.
#[derive(Debug)]
pub(super) struct Entry {
    pub delivery: Delivery,
    /// The task's id; empty for a message that cannot be run.
    pub id: String,
    /// What remote control has said about it.
    pub orders: Orders,
    arrival: u64,
    stage: AtomicU8,
    /// It was acknowledged before it began: nobody gives it back or renews it.
    acknowledged: AtomicBool,
    /// When it began, in microseconds since 1970; 0 before.
    began: AtomicU64,
}

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const GIVEN_BACK: u8 = 2;

impl Entry {
    /// When it began, in seconds since 1970; `None` before.
    pub fn began(&self) -> Option<f64> {
        let began = self.began.load(Ordering::Acquire);
        (began > 0).then(|| began as f64 / 1e6)
    }

    /// It was acknowledged before it began.
    pub fn acknowledged(&self) {
        self.acknowledged.store(true, Ordering::Release);
    }

    fn is_reserved(&self) -> bool {
        !self.acknowledged.load(Ordering::Acquire)
    }

    /// The task is given back. False when it has begun, or was given back before.
    fn give_back(&self) -> bool {
        self.leave_waiting(GIVEN_BACK)
    }

    fn leave_waiting(&self, stage: u8) -> bool {
        self.stage
            .compare_exchange(WAITING, stage, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Inflight {
    pub fn add(&self, delivery: Delivery, id: String) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            id,
            orders: Orders::default(),
            acknowledged: AtomicBool::new(false),
            began: AtomicU64::new(0),
            arrival: self.arrivals.fetch_add(1, Ordering::Relaxed),
            stage: AtomicU8::new(WAITING),
            delivery,
        });
        self.entries()
            .insert(entry.delivery.tag.clone(), Arc::clone(&entry));
        entry
    }

    pub fn remove(&self, tag: &DeliveryTag) {
        self.entries().remove(tag);
        self.moved.notify_one();
    }

    /// How many more may be received. Tasks that wait for their time take no place. While more than half of the
    /// prefetched tasks still wait for a slot it is none, so that many are received at once and not one by one.
    pub fn room(&self, prefetch: usize, concurrency: usize, running: usize) -> usize {
        if self.is_full() {
            return 0;
        }
        let deferred = self.deferred.load(Ordering::Acquire);
        let held = self.entries().len().saturating_sub(deferred);
        let enough = prefetch.saturating_sub(concurrency) / 2;
        if held.saturating_sub(running) > enough {
            0
        } else {
            prefetch.saturating_sub(held)
        }
    }

    /// Whether so many tasks wait for their time that no more are received.
    pub fn is_full(&self) -> bool {
        self.deferred.load(Ordering::Acquire) >= MOST_DEFERRED
    }

    /// The task begins. False when it was given back.
    pub fn begin(&self, entry: &Entry) -> bool {
        let begins = entry.leave_waiting(RUNNING);
        if begins {
            let now = u64::try_from(system::now().as_microsecond()).unwrap_or(1);
            entry.began.store(now, Ordering::Release);
        }
        self.moved.notify_one();
        begins
    }

    /// Counts a task as waiting for its time until the guard is dropped.
    pub fn defer(&self) -> Deferred<'_> {
        self.deferred.fetch_add(1, Ordering::AcqRel);
        self.moved.notify_one();
        Deferred(self)
    }

    /// Everything that is held, oldest first.
    pub fn held(&self) -> Vec<Arc<Entry>> {
        let mut held: Vec<Arc<Entry>> = self.entries().values().cloned().collect();
        held.sort_by_key(|entry| entry.arrival);
        held
    }

    pub fn tags(&self) -> Vec<DeliveryTag> {
        let entries = self.entries();
        let reserved = entries.values().filter(|entry| entry.is_reserved());
        reserved.map(|entry| entry.delivery.tag.clone()).collect()
    }

    pub fn holds(&self, tag: &DeliveryTag) -> bool {
        self.entries().contains_key(tag)
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.entries()
            .values()
            .filter(|entry| entry.is_reserved())
            .map(|entry| entry.delivery.clone())
            .collect()
    }

    /// Takes out what has not begun, the latest first: given back in this order, the oldest ends up at the head.
    pub fn take_waiting(&self) -> Vec<Delivery> {
        self.take(Entry::give_back)
    }

    /// Takes out everything, likewise.
    pub fn take_all(&self) -> Vec<Delivery> {
        self.take(Entry::is_reserved)
    }

    fn take(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Delivery> {
        let mut entries = self.entries();
        let mut taken: Vec<Arc<Entry>> = entries.values().filter(|entry| wanted(entry)).cloned().collect();
        for entry in &taken {
            entries.remove(&entry.delivery.tag);
        }
        taken.sort_by_key(|entry| std::cmp::Reverse(entry.arrival));
        taken.iter().map(|entry| entry.delivery.clone()).collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<DeliveryTag, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Deferred<'a>(&'a Inflight);

impl Drop for Deferred<'_> {
    fn drop(&mut self) {
        self.0.deferred.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(inflight: &Inflight, number: usize) -> Arc<Entry> {
        let tag = DeliveryTag(number.to_string());
        let delivery = Delivery {
            tag,
            queue: "q".to_owned(),
            raw: Vec::new(),
        };
        inflight.add(delivery, String::new())
    }

    #[test]
    fn there_is_room_once_half_of_the_waiting_have_begun() {
        let inflight = Inflight::default();
        let room = |running| inflight.room(40, 10, running);
        assert_eq!(room(0), 40);
        (0..40).for_each(|number| drop(hold(&inflight, number)));
        assert_eq!(room(10), 0);
        (0..14).for_each(|number| inflight.remove(&DeliveryTag(number.to_string())));
        assert_eq!(room(10), 0, "16 still wait");
        inflight.remove(&DeliveryTag("14".to_owned()));
        assert_eq!(room(10), 15);
        assert_eq!(inflight.room(10, 10, 0), 0, "more are held than may be");
        let deferred = inflight.defer();
        assert_eq!(room(10), 16, "a task that waits for its time takes no place");
        drop(deferred);
        assert_eq!(room(10), 15);
    }

    #[test]
    fn what_has_begun_is_not_given_back_and_the_rest_in_reverse() {
        let inflight = Inflight::default();
        let entries: Vec<_> = (0..4).map(|number| hold(&inflight, number)).collect();
        assert!(inflight.begin(&entries[1]));
        let back: Vec<_> = inflight
            .take_waiting()
            .into_iter()
            .map(|delivery| delivery.tag.0)
            .collect();
        assert_eq!(back, ["3", "2", "0"]);
        assert!(!inflight.begin(&entries[0]), "it was given back");
        assert_eq!(inflight.take_all().len(), 1);
    }
}
