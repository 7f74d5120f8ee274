//! The bounded queue between whoever records and the export thread. Recording costs one short lock; the export thread is
//! woken when a batch is full and left asleep otherwise. What does not fit is dropped and counted. Entries are gathered
//! into batches as they come, and a batch that was exported lends its memory to the next.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What is gathered for one export.
pub(crate) trait Entries: Default {
    /// How many there are.
    fn count(&self) -> usize;

    /// Forgets them; memory for the next ones may stay.
    fn clear(&mut self);
}

/// Entries on their way to the export thread, in batches `B`.
#[derive(Debug)]
pub(crate) struct Queue<B> {
    capacity: usize,
    batch_size: usize,
    state: Mutex<State<B>>,
    ready: Notify,
    overflow: Notify,
}

/// In this order: what every push needs is in one or two lines of the cache, which processors take from each other.
#[derive(Debug)]
#[repr(C)]
struct State<B> {
    closed: bool,
    flush: bool,
    overflowing: bool,
    /// How many entries more there may be.
    room: usize,
    /// The batch that is being filled.
    open: B,
    /// Batches of full size, oldest first.
    full: VecDeque<B>,
    /// An empty batch whose memory is used again.
    spare: B,
    /// What had been dropped when the last overflow was over.
    dropped_before: u64,
    counts: Counts,
}

/// What has become of the entries so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Handed to the exporter.
    pub(crate) taken: u64,
    /// Refused by a full queue.
    pub(crate) dropped: u64,
    /// Refused after the end.
    pub(crate) late: u64,
}

impl<B: Entries> Queue<B> {
    /// `batch_size` is at most `capacity`; both count entries and are at least one.
    pub(crate) fn new(capacity: usize, batch_size: usize) -> Self {
        Self {
            capacity,
            batch_size,
            state: Mutex::new(State {
                closed: false,
                flush: false,
                overflowing: false,
                room: capacity,
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

    /// Has `add` add one entry to a batch, or drops it when the queue is full or closed. `add` runs under the lock and must
    /// do no more than move memory.
    pub(crate) fn push(&self, add: impl FnOnce(&mut B)) {
        let mut state = self.lock();
        if state.closed {
            state.counts.late += 1;
            return;
        }
        if state.room == 0 {
            state.counts.dropped += 1;
            let begins = !state.overflowing;
            state.overflowing = true;
            drop(state);
            if begins {
                self.overflow.notify_one();
            }
            return;
        }
        state.room -= 1;
        add(&mut state.open);
        if state.open.count() < self.batch_size {
            return;
        }
        let empty = std::mem::take(&mut state.spare);
        let batch = std::mem::replace(&mut state.open, empty);
        state.full.push_back(batch);
        drop(state);
        self.ready.notify_one();
    }

    /// Waits for a full batch or a flush. A call may come back with nothing to take.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Waits until something does not fit while everything did before.
    pub(crate) async fn overflow(&self) {
        self.overflow.notified().await;
    }

    /// The oldest batch of full size; after [`Queue::flush`] a smaller one too.
    pub(crate) fn take_ready(&self) -> Option<B> {
        let mut state = self.lock();
        if state.flush && state.full.is_empty() {
            state.flush = false;
            return take_open(&mut state);
        }
        take_full(&mut state)
    }

    /// The oldest batch of whatever size.
    pub(crate) fn take(&self) -> Option<B> {
        let mut state = self.lock();
        take_full(&mut state).or_else(|| take_open(&mut state))
    }

    /// Gives the memory of a batch back.
    pub(crate) fn recycle(&self, mut batch: B) {
        batch.clear();
        let unused = std::mem::replace(&mut self.lock().spare, batch);
        // Not under the lock.
        drop(unused);
    }

    /// Asks for what is there to be exported without waiting for more.
    pub(crate) fn flush(&self) {
        self.lock().flush = true;
        self.ready.notify_one();
    }

    /// From now on nothing is taken in; what is there can still be taken out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Entries waiting.
    pub(crate) fn len(&self) -> usize {
        self.capacity - self.lock().room
    }

    /// The most entries that wait.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Ends an overflow, unless there is none or more than `dropped` entries have been dropped since the start. Gives how
    /// many were dropped in it.
    pub(crate) fn end_overflow(&self, dropped: u64) -> Option<u64> {
        let mut state = self.lock();
        if !state.overflowing || state.counts.dropped != dropped {
            return None;
        }
        state.overflowing = false;
        Some(dropped - std::mem::replace(&mut state.dropped_before, dropped))
    }

    /// No code that can panic runs under the lock but the allocator's; the state is whole whatever happened.
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_full<B: Entries>(state: &mut State<B>) -> Option<B> {
    let batch = state.full.pop_front()?;
    Some(taken(state, batch))
}

fn take_open<B: Entries>(state: &mut State<B>) -> Option<B> {
    if state.open.count() == 0 {
        return None;
    }
    let empty = std::mem::take(&mut state.spare);
    let batch = std::mem::replace(&mut state.open, empty);
    Some(taken(state, batch))
}

fn taken<B: Entries>(state: &mut State<B>, batch: B) -> B {
    state.room += batch.count();
    state.counts.taken += batch.count() as u64;
    batch
}

#[cfg(test)]
impl<T> Entries for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn clear(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
impl<T> Queue<Vec<T>> {
    pub(super) fn push_one(&self, entry: T) {
        self.push(|batch| batch.push(entry));
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

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
    fn nobody_is_woken_before_a_batch_is_full() {
        let queue = filled(10, 3, 2);
        assert!(!is_ready(&queue));
        assert_eq!(queue.take_ready(), None);
        queue.push_one(2);
        assert!(is_ready(&queue));
        assert_eq!(queue.take_ready(), Some(vec![0, 1, 2]));
    }

    #[test]
    fn batches_keep_the_order_and_the_last_may_be_small() {
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
    fn what_does_not_fit_is_dropped_and_counted() {
        let queue = filled(4, 3, 1_000);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.counts().dropped, 996);
        assert_eq!(queue.take(), Some(vec![0, 1, 2]));
        queue.push_one(7);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn an_overflow_begins_once_and_ends_when_nothing_was_dropped_since() {
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
    fn a_flush_takes_what_is_there() {
        let queue = filled(10, 3, 1);
        queue.flush();
        assert!(is_ready(&queue));
        assert_eq!(queue.take_ready(), Some(vec![0]));
        queue.push_one(1);
        assert_eq!(queue.take_ready(), None);
    }

    #[test]
    fn a_closed_queue_takes_nothing_in_and_gives_out_what_it_has() {
        let queue = filled(10, 3, 1);
        queue.close();
        queue.push_one(1);
        assert_eq!(queue.counts().late, 1);
        assert_eq!(queue.take(), Some(vec![0]));
        assert_eq!(queue.take(), None);
    }
}
