//! Exponential back-off with jitter.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Delays between attempts, which double up to a maximum.
#[derive(Debug)]
pub(crate) struct Backoff {
    delay: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { delay: first, max }
    }

    /// Returns the next delay, with jitter of up to half the delay in either direction.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = jittered(self.delay, random());
        self.delay = (self.delay * 2).min(self.max);
        delay
    }
}

/// Returns `delay` multiplied by 0.5 to 1.5, for a `share` from 0 to 1.
fn jittered(delay: Duration, share: f64) -> Duration {
    delay.mul_f64(0.5 + share)
}

/// Returns a random number from 0 to 1. The standard library seeds every `RandomState` differently.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    u32::try_from(bits).map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_at_most_half_of_the_delay() {
        let delay = Duration::from_secs(2);
        assert_eq!(jittered(delay, 0.0), Duration::from_secs(1));
        assert_eq!(jittered(delay, 1.0), Duration::from_secs(3));
        assert!((0.0..=1.0).contains(&random()));
    }
}
