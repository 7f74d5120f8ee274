//! The bounded queue between the recording threads and the export thread. Recording holds one lock briefly;
//! the export thread is notified when a batch is full. Entries beyond the capacity are dropped and counted.
//! Entries are stored in batches, and the memory of an exported batch is reused.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Entries of one export.
pub(crate) trait Entries: Default {
    /// Returns the number of entries.
    fn count(&self) -> usize;

    /// Returns the size of the entries in bytes.
    fn bytes(&self) -> usize;

    /// Removes all entries; may keep the memory.
    fn clear(&mut self);
}

/// Maximum size of a batch in bytes. With the resource and the scopes, a request stays below the limit of receivers.
const MAX_BATCH_BYTES: usize = 3_500_000;

/// Maximum size of the queued entries in bytes.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// A queue of batches `B`.
#[derive(Debug)]
pub(crate) struct Queue<B> {
    capacity: usize,
    batch_size: usize,
    batches: Mutex<Batches<B>>,
    ready: Notify,
    overflow: Notify,
}

#[derive(Debug)]
struct Batches<B> {
    closed: bool,
    flush: bool,
    overflowing: bool,
    /// Number of free entries.
    room: usize,
    /// Size of the queued entries in bytes.
    bytes: usize,
    /// The batch that is being filled.
    open: B,
    /// Full batches, oldest first.
    full: VecDeque<B>,
    /// An empty batch with memory to reuse.
    spare: B,
    /// Number of entries dropped before the current overflow.
    dropped_before: u64,
    counts: Counts,
}

/// Numbers of entries since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Entries passed to the exporter.
    pub(crate) taken: u64,
    /// Entries dropped because the queue was full.
    pub(crate) dropped: u64,
    /// Entries dropped because the queue was closed.
    pub(crate) late: u64,
}

impl<B: Entries> Queue<B> {
    /// Creates an empty queue. Both sizes count entries. The capacity is at least one, and a batch is at most as large as
    /// the queue.
    pub(crate) fn new(capacity: usize, batch_size: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            capacity,
            batch_size: batch_size.min(capacity),
            batches: Mutex::new(Batches {
                closed: false,
                flush: false,
                overflowing: false,
                room: capacity,
                bytes: 0,
                open: B::default(),
                full: VecDeque::new(),
                spare: B::default(),
                dropped_before: 0,
                counts: Counts::default(),
            }),
            ready: Notify::new(),
            overflow: Notify::new(),
        }
    }

    /// Calls `add`, which adds one entry of `size` bytes to the open batch, unless the queue is full or closed. `add`
    /// runs under the lock and must only move memory.
    pub(crate) fn push(&self, size: usize, add: impl FnOnce(&mut B)) {
        let mut batches = self.lock();
        if batches.closed {
            batches.counts.late += 1;
            return;
        }
        if batches.room == 0 || batches.bytes + size > MAX_QUEUED_BYTES {
            batches.counts.dropped += 1;
            let begins = !batches.overflowing;
            batches.overflowing = true;
            drop(batches);
            if begins {
                self.overflow.notify_one();
            }
            return;
        }
        batches.room -= 1;
        // The batch is full without this entry.
        let is_split = batches.open.bytes() + size > MAX_BATCH_BYTES && batches.open.count() > 0;
        if is_split {
            batches.close_open();
        }
        let before = batches.open.bytes();
        add(&mut batches.open);
        batches.bytes += batches.open.bytes() - before;
        let is_full = batches.open.count() >= self.batch_size;
        if is_full {
            batches.close_open();
        }
        drop(batches);
        if is_split || is_full {
            self.ready.notify_one();
        }
    }

    /// Waits for a full batch or a flush. May return spuriously.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Waits for an overflow to begin.
    pub(crate) async fn overflow(&self) {
        self.overflow.notified().await;
    }

    /// Removes the oldest full batch. Once after [`Queue::flush`], removes the open batch when no full batch
    /// is left.
    pub(crate) fn take_ready(&self) -> Option<B> {
        let mut batches = self.lock();
        if batches.flush && batches.full.is_empty() {
            batches.flush = false;
            return batches.take_open();
        }
        batches.take_full()
    }

    /// Removes the oldest batch, full or not.
    pub(crate) fn take(&self) -> Option<B> {
        let mut batches = self.lock();
        batches.take_full().or_else(|| batches.take_open())
    }

    /// Gives an exported batch back to the queue, which reuses the memory.
    pub(crate) fn recycle(&self, mut batch: B) {
        batch.clear();
        let unused = std::mem::replace(&mut self.lock().spare, batch);
        // Freed after the lock is released.
        drop(unused);
    }

    /// Requests an export of all entries without waiting for full batches.
    pub(crate) fn flush(&self) {
        self.lock().flush = true;
        self.ready.notify_one();
    }

    /// Rejects new entries. Entries in the queue can still be removed.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Returns the number of entries that the queue has received since the start, whatever became of them.
    pub(crate) fn received(&self) -> u64 {
        let batches = self.lock();
        let Counts { taken, dropped, late } = batches.counts;
        taken + dropped + late + (self.capacity - batches.room) as u64
    }

    /// Returns the number of entries in the queue.
    pub(crate) fn len(&self) -> usize {
        self.capacity - self.lock().room
    }

    /// Returns the maximum number of entries.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Ends the current overflow if exactly `dropped` entries have been dropped since the start; returns the
    /// number of entries dropped during the overflow.
    pub(crate) fn end_overflow(&self, dropped: u64) -> Option<u64> {
        let mut batches = self.lock();
        if !batches.overflowing || batches.counts.dropped != dropped {
            return None;
        }
        batches.overflowing = false;
        Some(dropped - std::mem::replace(&mut batches.dropped_before, dropped))
    }

    /// Locks the batches. Poisoning is ignored, because only the allocator can panic under the lock, and such
    /// a panic leaves the batches consistent.
    fn lock(&self) -> MutexGuard<'_, Batches<B>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Entries> Batches<B> {
    fn take_full(&mut self) -> Option<B> {
        let batch = self.full.pop_front()?;
        Some(self.taken(batch))
    }

    fn take_open(&mut self) -> Option<B> {
        if self.open.count() == 0 {
            return None;
        }
        let empty = std::mem::take(&mut self.spare);
        let batch = std::mem::replace(&mut self.open, empty);
        Some(self.taken(batch))
    }

    fn close_open(&mut self) {
        let empty = std::mem::take(&mut self.spare);
        let batch = std::mem::replace(&mut self.open, empty);
        self.full.push_back(batch);
    }

    fn taken(&mut self, batch: B) -> B {
        self.room += batch.count();
        self.bytes -= batch.bytes();
        self.counts.taken += batch.count() as u64;
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    impl<T> Entries for Vec<T> {
        fn count(&self) -> usize {
            self.len()
        }

        fn bytes(&self) -> usize {
            self.len() * ENTRY
        }

        fn clear(&mut self) {
            self.clear();
        }
    }

    /// Size of the entries of these tests.
    const ENTRY: usize = 1_000;

    impl<T> Queue<Vec<T>> {
        pub(crate) fn push_one(&self, entry: T) {
            self.push(ENTRY, |batch| batch.push(entry));
        }
    }

    /// Whether the export thread would have been woken.
    fn is_ready(queue: &Queue<Vec<u32>>) -> bool {
        let ready = pin!(queue.ready());
        ready.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn filled(capacity: usize, batch_size: usize, entries: u32) -> Queue<Vec<u32>> {
        let queue = Queue::new(capacity, batch_size);
        (0..entries).for_each(|entry| queue.push_one(entry));
        queue
    }

    #[test]
    fn the_export_thread_is_notified_when_a_batch_is_full() {
        let queue = filled(10, 3, 2);
        assert!(!is_ready(&queue));
        assert_eq!(queue.take_ready(), None);
        queue.push_one(2);
        assert!(is_ready(&queue));
        assert_eq!(queue.take_ready(), Some(vec![0, 1, 2]));
    }

    #[test]
    fn batches_keep_the_order_of_entries_and_the_last_may_be_smaller() {
        let queue = filled(10, 3, 7);
        assert_eq!(queue.len(), 7);
        let mut taken = Vec::new();
        while let Some(batch) = queue.take() {
            taken.push(batch.clone());
            queue.recycle(batch);
        }
        assert_eq!(taken, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!((queue.len(), queue.counts().taken), (0, 7));
    }

    #[test]
    fn a_batch_and_the_queue_have_a_limited_size() {
        let queue = filled(1_000_000, 1_000_000, 200_000);
        let limit = u64::try_from(MAX_QUEUED_BYTES / ENTRY).unwrap();
        assert_eq!(queue.counts().dropped, 200_000 - limit);
        let batch = queue.take_ready().unwrap();
        assert_eq!(batch.len(), MAX_BATCH_BYTES / ENTRY);
        queue.push_one(7);
        assert_eq!(queue.len() as u64, limit - batch.len() as u64 + 1);
    }

    #[test]
    fn entries_that_do_not_fit_are_dropped_and_counted() {
        let queue = filled(4, 3, 1_000);
        assert_eq!(queue.len(), 4);
        assert_eq!((queue.counts().dropped, queue.received()), (996, 1_000));
        assert_eq!(queue.take(), Some(vec![0, 1, 2]));
        queue.push_one(7);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn an_overflow_begins_once_and_ends_when_no_more_entries_are_dropped() {
        let queue = filled(1, 1, 3);
        let begins = |queue: &Queue<Vec<u32>>| {
            let overflow = pin!(queue.overflow());
            overflow.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
        };
        assert!(begins(&queue));
        queue.push_one(4);
        assert!(!begins(&queue));
        assert_eq!(queue.end_overflow(2), None);
        assert_eq!(queue.end_overflow(3), Some(3));
        assert_eq!(queue.end_overflow(3), None);
        queue.push_one(5);
        assert!(begins(&queue));
        assert_eq!(queue.end_overflow(4), Some(1));
    }

    #[test]
    fn a_flush_makes_a_partial_batch_ready() {
        let queue = filled(10, 3, 1);
        queue.flush();
        assert!(is_ready(&queue));
        assert_eq!(queue.take_ready(), Some(vec![0]));
        queue.push_one(1);
        assert_eq!(queue.take_ready(), None);
    }

    #[test]
    fn a_closed_queue_rejects_new_entries_and_returns_the_remaining_entries() {
        let queue = filled(10, 3, 1);
        queue.close();
        queue.push_one(1);
        assert_eq!((queue.counts().late, queue.received()), (1, 2));
        assert_eq!(queue.take(), Some(vec![0]));
        assert_eq!(queue.take(), None);
    }
}
