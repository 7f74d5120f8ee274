//! A stopwatch shared by a span and its duration metric: both report the same time, and one clock reading is
//! saved. If neither is recorded, the clock is not read.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use crate::{metrics, recorder};

/// The start time of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    /// `None` if neither spans nor metrics are recorded.
    started: Option<Instant>,
    /// `None` if spans are not recorded.
    time: Option<SystemTime>,
}

impl Stopwatch {
    /// Starts the stopwatch.
    #[must_use]
    pub fn start() -> Self {
        let spans = recorder::is_exporting();
        Self {
            started: (spans || metrics::is_ready()).then(Instant::now),
            time: spans.then(SystemTime::now),
        }
    }

    /// Returns the start time for the span.
    #[must_use]
    pub fn time(&self) -> Option<SystemTime> {
        self.time
    }

    /// Returns the elapsed time, or zero if nothing is recorded.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Ends the span of `cx` at the start time plus `elapsed`.
    pub fn end(&self, cx: &Context, elapsed: Duration) {
        match self.time.and_then(|time| time.checked_add(elapsed)) {
            Some(end) => cx.span().end_with_timestamp(end),
            None => cx.span().end(),
        }
    }
}
