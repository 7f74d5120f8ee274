//! Deliveries that a worker holds: scheduled for later, waiting for a slot, or running. Their leases are
//! renewed, and a shutdown returns them to their queues.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

use super::revoked::Orders;
use crate::{
    broker::{Delivery, DeliveryTag},
    lock::Lock,
    system,
    task_id::TaskId,
};

/// Maximum number of held tasks with an `eta` in the future, apart from postponed ones: AMQP's largest prefetch
/// count. At the maximum, the worker receives no messages.
const MAX_DEFERRED: usize = 65_535;

#[derive(Debug, Default)]
pub(super) struct Inflight {
    entries: Lock<HashMap<DeliveryTag, Arc<Entry>, system::HashState>>,
    arrivals: AtomicU64,
    /// Number of tasks that wait for their `eta`.
    deferred: AtomicUsize,
    /// Number of tasks that wait for their rate limit.
    limited: AtomicUsize,
    /// Notified when a task starts, ends or is deferred, which may make room for more.
    pub room_changed: Notify,
}

/// A held delivery.
#[derive(Debug)]
pub(super) struct Entry {
    pub delivery: Delivery,
    /// Id of the task; empty if the message cannot be run.
    pub id: TaskId,
    /// Remote-control orders for this delivery.
    pub orders: Orders,
    /// Time at which the delivery was requested.
    pub requested: Instant,
    /// Whether a renewal has included the delivery.
    renewed: AtomicBool,
    /// Whether the broker may have postponed the delivery.
    uncertain: AtomicBool,
    arrival: u64,
    stage: AtomicU8,
    /// Start time in microseconds since the Unix epoch; 0 before the start.
    started_at: AtomicU64,
}

// Stages of an entry.
const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const RETURNED: u8 = 2;
/// Running, but acknowledged before the start: its lease is not renewed, and a shutdown does not return it.
const ACKNOWLEDGED: u8 = 3;
/// Being settled, acknowledged early or postponed. The broker may already have removed the delivery on behalf of this
/// worker.
const SETTLING: u8 = 4;
/// Taken over by another worker.
const LOST: u8 = 5;

impl Entry {
    /// Returns the start time in seconds since the Unix epoch, or `None` before the start.
    pub(super) fn started_at(&self) -> Option<f64> {
        let started = self.started_at.load(Ordering::Acquire);
        (started > 0).then(|| started as f64 / 1e6)
    }

    /// Records that the delivery was acknowledged before the task started.
    pub(super) fn set_acknowledged(&self) {
        self.stage.store(ACKNOWLEDGED, Ordering::Release);
    }

    /// Marks a running task as being settled. Returns false if another worker has taken over its delivery.
    pub(super) fn begin_settling(&self) -> bool {
        self.change(RUNNING, SETTLING) || self.stage.load(Ordering::Acquire) == ACKNOWLEDGED
    }

    /// Marks a waiting delivery as being postponed. Returns false if another worker has taken it over.
    pub(super) fn begin_postponing(&self) -> bool {
        self.change(WAITING, SETTLING)
    }

    /// Marks a delivery as waiting again, because the broker did not confirm that it is postponed. Only a later
    /// renewal shows whether this worker still holds it.
    pub(super) fn cancel_postponing(&self) {
        self.uncertain.store(true, Ordering::Release);
        self.renewed.store(false, Ordering::Release);
        self.change(SETTLING, WAITING);
    }

    /// Returns whether a renewal has included the delivery.
    pub(super) fn is_renewed(&self) -> bool {
        self.renewed.load(Ordering::Acquire)
    }

    /// Returns whether the delivery was requested so recently, according to `is_recent`, that it is certainly held.
    pub(super) fn is_recent(&self, is_recent: impl Fn(Instant) -> bool) -> bool {
        !self.uncertain.load(Ordering::Acquire) && is_recent(self.requested)
    }

    /// Returns whether another worker has taken over the delivery.
    pub(super) fn is_lost(&self) -> bool {
        self.stage.load(Ordering::Acquire) == LOST
    }

    fn is_reserved(&self) -> bool {
        matches!(self.stage.load(Ordering::Acquire), WAITING | RUNNING | SETTLING)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.stage
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Inflight {
    pub(super) fn add(&self, delivery: Delivery, id: TaskId, requested: Instant) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            requested,
            renewed: AtomicBool::new(false),
            uncertain: AtomicBool::new(false),
            id,
            orders: Orders::default(),
            started_at: AtomicU64::new(0),
            arrival: self.arrivals.fetch_add(1, Ordering::Relaxed),
            stage: AtomicU8::new(WAITING),
            delivery,
        });
        self.entries
            .lock()
            .insert(entry.delivery.tag.clone(), Arc::clone(&entry));
        entry
    }

    pub(super) fn remove(&self, tag: &DeliveryTag) {
        self.entries.lock().remove(tag);
        self.room_changed.notify_one();
    }

    /// Returns the number of messages that may be received; tasks that wait for their `eta` do not count.
    ///
    /// Returns 0 while more than half of the prefetched tasks are waiting for a slot, because receiving
    /// messages in batches is cheaper than one by one.
    pub(super) fn room(&self, prefetch: usize, concurrency: usize, running: usize) -> usize {
        let deferred = self.deferred.load(Ordering::Acquire);
        if deferred >= MAX_DEFERRED {
            return 0;
        }
        let limited = self.limited.load(Ordering::Acquire);
        let held = self.entries.lock().len().saturating_sub(deferred);
        let enough = prefetch.saturating_sub(concurrency) / 2;
        if held.saturating_sub(running + limited) > enough {
            0
        } else {
            prefetch.saturating_sub(held)
        }
    }

    /// Marks the task as running; returns false if it has been returned to its queue, or another worker has
    /// taken it over.
    pub(super) fn start(&self, entry: &Entry) -> bool {
        let starts = entry.change(WAITING, RUNNING);
        if starts {
            let now = u64::try_from(system::now().as_microsecond()).unwrap_or(1);
            entry.started_at.store(now, Ordering::Release);
        }
        self.room_changed.notify_one();
        starts
    }

    /// Counts a task as waiting for its `eta` until the guard is dropped.
    pub(super) fn defer(&self) -> Counted<'_> {
        self.count(&self.deferred)
    }

    /// Counts a task as waiting for its rate limit until the guard is dropped.
    pub(super) fn limit(&self) -> Counted<'_> {
        self.count(&self.limited)
    }

    fn count<'a>(&'a self, counter: &'a AtomicUsize) -> Counted<'a> {
        counter.fetch_add(1, Ordering::AcqRel);
        self.room_changed.notify_one();
        Counted(counter)
    }

    /// Returns all held deliveries, oldest first.
    pub(super) fn held(&self) -> Vec<Arc<Entry>> {
        let mut held: Vec<Arc<Entry>> = self.entries.lock().values().cloned().collect();
        held.sort_by_key(|entry| entry.arrival);
        held
    }

    /// Returns `part` of each delivery that is still reserved.
    pub(super) fn reserved<T>(&self, part: impl Fn(&Delivery) -> T) -> Vec<T> {
        let entries = self.entries.lock();
        let reserved = entries.values().filter(|entry| entry.is_reserved());
        reserved.map(|entry| part(&entry.delivery)).collect()
    }

    /// Records that a renewal has included these deliveries.
    pub(super) fn set_renewed(&self, tags: &[DeliveryTag]) {
        let entries = self.entries.lock();
        for entry in tags.iter().filter_map(|tag| entries.get(tag)) {
            entry.renewed.store(true, Ordering::Release);
        }
    }

    /// Lets go of deliveries that other workers have taken over: the tasks do not start, and running tasks
    /// are told. Returns the numbers of tasks that were waiting and running.
    ///
    /// A delivery that is being settled is not affected, because the settlement itself may have removed it.
    pub(super) fn lose(&self, tags: &[DeliveryTag]) -> (usize, usize) {
        let (mut waiting, mut running) = (0, 0);
        let entries = self.entries.lock();
        for tag in tags {
            let Some(entry) = entries.get(tag) else { continue };
            if entry.change(RUNNING, LOST) {
                running += 1;
            } else if entry.change(WAITING, LOST) {
                waiting += 1;
            } else {
                continue;
            }
            entry.orders.lose();
        }
        drop(entries);
        (waiting, running)
    }

    /// Returns the tags of the running tasks that were acknowledged before they started.
    pub(super) fn acknowledged(&self) -> Vec<DeliveryTag> {
        let entries = self.entries.lock();
        let acknowledged = entries
            .values()
            .filter(|entry| entry.stage.load(Ordering::Acquire) == ACKNOWLEDGED);
        acknowledged.map(|entry| entry.delivery.tag.clone()).collect()
    }

    pub(super) fn holds(&self, tag: &DeliveryTag) -> bool {
        self.entries.lock().contains_key(tag)
    }

    /// Removes and returns the deliveries whose tasks have not started, newest first: returned to the
    /// queue in this order, the oldest ends up at its head.
    pub(super) fn take_waiting(&self) -> Vec<Delivery> {
        self.take(|entry| entry.change(WAITING, RETURNED))
    }

    /// Removes and returns all reserved deliveries, newest first.
    pub(super) fn take_all(&self) -> Vec<Delivery> {
        self.take(Entry::is_reserved)
    }

    fn take(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Delivery> {
        let mut entries = self.entries.lock();
        let mut taken: Vec<Arc<Entry>> = entries.values().filter(|entry| wanted(entry)).cloned().collect();
        for entry in &taken {
            entries.remove(&entry.delivery.tag);
        }
        taken.sort_by_key(|entry| std::cmp::Reverse(entry.arrival));
        taken.iter().map(|entry| entry.delivery.clone()).collect()
    }
}

pub(super) struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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
        inflight.add(delivery, "".into(), Instant::now())
    }

    #[test]
    fn there_is_room_once_half_of_the_waiting_tasks_have_started() {
        let inflight = Inflight::default();
        let room = |running| inflight.room(40, 10, running);
        assert_eq!(room(0), 40);
        (0..40).for_each(|number| drop(hold(&inflight, number)));
        assert_eq!(room(10), 0);
        (0..14).for_each(|number| inflight.remove(&DeliveryTag(number.to_string())));
        assert_eq!(room(10), 0, "16 tasks are still waiting");
        inflight.remove(&DeliveryTag("14".to_owned()));
        assert_eq!(room(10), 15);
        assert_eq!(inflight.room(10, 10, 0), 0, "more tasks are held than allowed");
        let deferred = inflight.defer();
        assert_eq!(room(10), 16, "a task that waits for its eta does not count");
        drop(deferred);
        assert_eq!(room(10), 15);
        (0..3).for_each(|number| drop(hold(&inflight, number)));
        assert_eq!(room(10), 0, "18 of 28 tasks are waiting for a slot");
        let limited: Vec<_> = (0..3).map(|_| inflight.limit()).collect();
        assert_eq!(
            room(10),
            12,
            "tasks that wait for their rate limit need no slot, but count"
        );
        drop(limited);
        assert_eq!(room(10), 0);
    }

    #[test]
    fn waiting_tasks_are_returned_newest_first_and_running_ones_are_not() {
        let inflight = Inflight::default();
        let entries: Vec<_> = (0..4).map(|number| hold(&inflight, number)).collect();
        assert!(inflight.start(&entries[1]));
        let back: Vec<_> = inflight
            .take_waiting()
            .into_iter()
            .map(|delivery| delivery.tag.0)
            .collect();
        assert_eq!(back, ["3", "2", "0"]);
        assert!(!inflight.start(&entries[0]), "the task was returned");
        assert_eq!(inflight.take_all().len(), 1);
    }

    #[test]
    fn lost_deliveries_neither_start_nor_settle() {
        let inflight = Inflight::default();
        let entries: Vec<_> = (0..4).map(|number| hold(&inflight, number)).collect();
        (1..4).for_each(|number| assert!(inflight.start(&entries[number])));
        assert!(entries[2].begin_settling());
        let tags: Vec<_> = entries.iter().map(|entry| entry.delivery.tag.clone()).collect();
        assert_eq!(inflight.lose(&tags[..3]), (1, 1), "a settlement is not affected");
        assert!(!inflight.start(&entries[0]));
        assert!(!entries[1].begin_settling());
        assert!(entries[3].begin_settling());
        let reserved = inflight.reserved(|delivery| delivery.tag.0.clone());
        assert_eq!(reserved.len(), 2);
        assert_eq!(inflight.lose(&tags), (0, 0), "deliveries are lost once");
    }
}
