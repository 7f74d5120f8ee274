//! Times a span and the duration that is measured with it by the same readings of the clock: both say the same, and cost
//! one reading less. Where nothing is recorded the clock is not read.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

use crate::{context, metrics};

/// A moment at which something began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    /// Where spans or metrics are recorded.
    started: Option<Instant>,
    /// Where spans are recorded.
    time: Option<SystemTime>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let spans = context::records();
        Self {
            started: (spans || metrics::is_ready()).then(Instant::now),
            time: spans.then(SystemTime::now),
        }
    }

    /// When it began, for the span.
    pub(crate) fn time(&self) -> Option<SystemTime> {
        self.time
    }

    /// Zero where nothing is recorded.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Ends the span of `cx`, which began with this, when `elapsed` had passed.
    pub(crate) fn end(&self, cx: &Context, elapsed: Duration) {
        match self.time.and_then(|time| time.checked_add(elapsed)) {
            Some(end) => cx.span().end_with_timestamp(end),
            None => cx.span().end(),
        }
    }
}
