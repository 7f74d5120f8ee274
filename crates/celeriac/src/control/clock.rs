//! Logical clock that orders the messages of workers and clients (Lamport, 1978), as kombu implements it.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Advances the clock for a local event and returns the event's time.
    pub(crate) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Advances the clock to the time of a received message, if the message has one.
    pub(crate) fn adjust(&self, received: Option<u64>) {
        // A time close to overflow is invalid.
        if let Some(time) = received.filter(|time| *time < u64::MAX / 2) {
            self.0.fetch_max(time, Ordering::Relaxed);
        }
        self.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_time_precedes_the_next_local_one() {
        let clock = Clock::default();
        assert_eq!(clock.tick(), 1);
        clock.adjust(Some(40));
        assert_eq!(clock.tick(), 42);
        clock.adjust(Some(3));
        assert_eq!(clock.value(), 43);
        clock.adjust(Some(u64::MAX));
        assert_eq!(clock.value(), 44);
    }
}
