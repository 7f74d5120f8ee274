//! Where time comes from. Injected, so that a test can hold it still.

use jiff::Timestamp;

/// The current time, in UTC.
pub trait Clock: Send + Sync + 'static {
    /// Now, cut to microseconds: what the database columns hold.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine for the time"
    )]
    fn now(&self) -> Timestamp {
        to_micros(Timestamp::now())
    }
}

/// `time` without what a `timestamp` column cannot hold.
#[must_use]
pub fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
