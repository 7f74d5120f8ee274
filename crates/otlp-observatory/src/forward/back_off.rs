//! Exponential back-off with jitter.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// Delays that double with each failure, up to a maximum.
#[derive(Debug)]
pub(super) struct BackOff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl BackOff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// Returns the next delay, shortened by up to half at random so that many senders do not retry at once.
    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        delay.mul_f64(0.5 + random() / 2.0)
    }

    /// Starts over with the minimum; called after a success.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Returns `delay`, extended by up to a tenth at random.
pub(super) fn at_least(delay: Duration) -> Duration {
    delay + delay.mul_f64(random() / 10.0)
}

/// Returns a number from 0 to 1. The standard library seeds every `RandomState` differently.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    u32::try_from(bits).map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}
