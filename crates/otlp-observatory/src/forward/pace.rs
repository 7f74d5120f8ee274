//! How fast the forwarder goes: how long it collects, and how long it waits after a failure.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// The times and sizes of sending. Tests have shorter ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long the first record of a batch waits for others.
    pub(super) linger: Duration,
    /// How long a batch may get, in bytes before compression; a single record may be longer.
    pub(super) batch_bytes: usize,
    pub(super) batch_records: usize,
    /// One request, from connecting to the end of its answer.
    pub(super) request_timeout: Duration,
    pub(super) token_timeout: Duration,
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
    /// No backend keeps us away longer, whatever its `Retry-After` says.
    pub(super) longest_wish: Duration,
    /// How much may be lost when the machine, and not only the process, goes down.
    pub(super) sync_interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(1),
            batch_bytes: 1 << 20,
            batch_records: 1024,
            request_timeout: Duration::from_secs(30),
            token_timeout: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            longest_wish: Duration::from_secs(600),
            sync_interval: Duration::from_secs(1),
        }
    }
}

/// Pauses that double from failure to failure.
#[derive(Debug)]
pub(super) struct BackOff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl BackOff {
    pub(super) fn new(pace: &Pace) -> Self {
        Self {
            first: pace.first_pause,
            longest: pace.longest_pause,
            next: pace.first_pause,
        }
    }

    /// From half of the pause to all of it, so that a crowd that was sent away together comes back one by one.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + random() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// `asked`, and up to a tenth more.
pub(super) fn not_before(asked: Duration) -> Duration {
    asked + asked.mul_f64(random() / 10.0)
}

/// A number from 0 to 1; the standard library seeds every `RandomState` differently.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    u32::try_from(bits).map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}
