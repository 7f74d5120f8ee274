//! Exponential back-off with jitter.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// Delays that double after each failure, up to a maximum.
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

    /// Returns the next delay. A random part of up to half is subtracted, which spreads the retries of many senders.
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

/// Returns `delay`, increased by a random part of up to a tenth.
pub(super) fn at_least(delay: Duration) -> Duration {
    delay + delay.mul_f64(random() / 10.0)
}

/// Returns a random number from 0 to 1, from the seed that the standard library gives every `RandomState`.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    u32::try_from(bits).map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}
