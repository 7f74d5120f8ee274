//! The logical clock that orders what workers and clients tell each other (Lamport, 1978), as kombu keeps it.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Something happens here: the time to write on it.
    pub fn forward(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Something arrived that happened at `other`: it is later here now.
    pub fn adjust(&self, other: u64) {
        // A time that leaves no room for what comes after it is nobody's clock.
        if other < u64::MAX / 2 {
            self.0.fetch_max(other, Ordering::Relaxed);
        }
        self.forward();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_comes_before_what_is_said_next() {
        let clock = Clock::default();
        assert_eq!(clock.forward(), 1);
        clock.adjust(40);
        assert_eq!(clock.forward(), 42);
        clock.adjust(3);
        assert_eq!(clock.value(), 43);
        clock.adjust(u64::MAX);
        assert_eq!(clock.value(), 44);
    }
}
