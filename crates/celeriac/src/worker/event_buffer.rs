//! Bounded buffer of task events that wait to be broadcast. While events are disabled nothing is buffered,
//! and a task only reads a flag.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
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
    buffer: Lock<Buffer>,
    /// Notified when the buffer reaches a full batch.
    pub(super) batch_ready: Notify,
}

#[derive(Debug, Default)]
struct Buffer {
    events: VecDeque<Event>,
    dropped: u64,
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
        let mut buffer = self.buffer.lock();
        if buffer.events.len() >= CAPACITY {
            buffer.dropped += 1;
            return;
        }
        buffer.events.push_back(event);
        if buffer.events.len() == MAX_BATCH {
            self.batch_ready.notify_one();
        }
    }

    /// Removes and returns up to a batch of events.
    pub(super) fn take(&self) -> Vec<Event> {
        let mut buffer = self.buffer.lock();
        let count = buffer.events.len().min(MAX_BATCH);
        buffer.events.drain(..count).collect()
    }

    /// Returns unsent events to the head of the buffer while there is room.
    pub(super) fn put_back(&self, events: Vec<Event>) {
        let mut buffer = self.buffer.lock();
        for event in events.into_iter().rev() {
            if buffer.events.len() < CAPACITY {
                buffer.events.push_front(event);
            } else {
                buffer.dropped += 1;
            }
        }
    }

    /// Returns the number of events dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.buffer.lock().dropped)
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
