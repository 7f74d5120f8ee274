//! Bounded buffer of task events that wait to be broadcast. While events are disabled nothing is buffered,
//! and a task only reads a flag.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::{event::Event, lock::Lock};

/// Maximum number of events that are broadcast together.
const MAX_BATCH: usize = 1000;
/// Number of events kept while broadcasts lag behind; newer ones are dropped.
const CAPACITY: usize = 4 * MAX_BATCH;

#[derive(Debug, Default)]
pub(super) struct EventBuffer {
    enabled: AtomicBool,
    events: Lock<VecDeque<Event>>,
    dropped: AtomicU64,
    /// Notified when the buffer reaches a full batch.
    pub(super) batch_ready: Notify,
}

impl EventBuffer {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled: AtomicBool::new(enabled),
            ..Self::default()
        }
    }

    pub(super) fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Enables or disables events. Returns whether they were enabled before.
    pub(super) fn enable(&self, enabled: bool) -> bool {
        self.enabled.swap(enabled, Ordering::Relaxed)
    }

    pub(super) fn add(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() >= CAPACITY {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        events.push_back(event);
        if events.len() == MAX_BATCH {
            self.batch_ready.notify_one();
        }
    }

    /// Removes and returns up to a batch of events.
    pub(super) fn take(&self) -> Vec<Event> {
        let mut events = self.events.lock();
        let count = events.len().min(MAX_BATCH);
        events.drain(..count).collect()
    }

    /// Returns unsent events to the head of the buffer while there is room.
    pub(super) fn put_back(&self, unsent: Vec<Event>) {
        let mut events = self.events.lock();
        for event in unsent.into_iter().rev() {
            if events.len() < CAPACITY {
                events.push_front(event);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns the number of events dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_bounded_and_counts_dropped_events() {
        let events = EventBuffer::new(true);
        let event = |number: usize| Event {
            kind: number.to_string(),
            hostname: String::new(),
            fields: serde_json::Map::new(),
        };
        (0..CAPACITY + 3).for_each(|number| events.add(event(number)));
        assert_eq!(events.take_dropped(), 3);
        let batch = events.take();
        assert_eq!((batch.len(), batch[0].kind.as_str()), (MAX_BATCH, "0"));
        events.add(event(9999));
        events.put_back(batch);
        assert_eq!(events.take_dropped(), 1, "the oldest returned event is dropped");
        assert_eq!(events.take()[0].kind, "1");
    }
}
