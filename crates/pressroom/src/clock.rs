//! The source of time, which tests replace.

use std::fmt::Debug;

use jiff::Timestamp;

/// Source of the current time, in UTC.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the current time, truncated to microseconds, the precision of the database columns.
    fn now(&self) -> Timestamp;
}

/// The system clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the only place that reads the system clock"
    )]
    fn now(&self) -> Timestamp {
        to_micros(Timestamp::now())
    }
}

/// Truncates `time` to microseconds, the precision of a `timestamp` column.
#[must_use]
pub fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
