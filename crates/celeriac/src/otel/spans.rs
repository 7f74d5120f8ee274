//! The spans of messages being sent and of tasks being run. Both are drop guards: an unfinished send is
//! recorded as cancelled, and an unfinished run ends its span.

use std::borrow::Cow;

use telemetry::instrumentation::{Stopwatch, record_exception, record_failure, record_unfinished};
use telemetry::opentelemetry::trace::TraceContextExt as _;
use telemetry::{Context, Failure, KeyValue};

use super::cache::CachedTask;
use super::instruments::instruments;
use super::message::TaskMessage;
use super::names::attribute;
use crate::task::TaskOutcome;

/// A message being sent to the broker.
///
/// Dropping it without [`Sending::finish`] records a cancellation.
#[derive(Debug)]
pub(super) struct Sending {
    /// The context to send the message in, which makes broker commands children of the span.
    pub(super) cx: Context,
    pub(super) queue: String,
    pub(super) finished: bool,
}

impl Sending {
    /// Ends the span with the reply of the broker.
    pub(super) fn finish(mut self, result: Result<(), &dyn Failure>) {
        let error_type = result.err().and_then(|failure| record_failure(&self.cx, failure));
        self.end(error_type);
    }

    fn end(&mut self, error_type: Option<Cow<'static, str>>) {
        self.finished = true;
        self.cx.span().end();
        if let Some(instruments) = instruments() {
            instruments.sent(&self.queue, error_type);
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.finished {
            let error_type = record_unfinished(&self.cx);
            self.end(Some(error_type));
        }
    }
}

/// A task being run.
///
/// Dropping it without [`Processing::finish`] ends the span, but records no metrics.
#[derive(Debug)]
pub(super) struct Processing<'a> {
    /// The context to run the task in.
    pub(super) cx: Context,
    pub(super) message: TaskMessage<'a>,
    pub(super) cached: Option<&'a CachedTask>,
    pub(super) stopwatch: Stopwatch,
    pub(super) finished: bool,
}

impl Processing<'_> {
    /// Ends the span and records the metrics.
    pub(super) fn finish(mut self, outcome: &TaskOutcome) {
        self.finished = true;
        let span = self.cx.span();
        span.set_attribute(KeyValue::new(attribute::CELERY_STATE, outcome.state()));
        let exception = outcome.exception();
        let error_type = exception.map(|exception| Cow::Owned(exception.type_name.clone()));
        if let Some(exception) = exception {
            record_exception(
                &self.cx,
                exception.type_name.clone().into(),
                exception.message.clone(),
            );
        }
        let elapsed = self.stopwatch.elapsed();
        self.stopwatch.end(&self.cx, elapsed);
        if let Some(instruments) = instruments() {
            let seconds = elapsed.as_secs_f64();
            let context = span.span_context();
            instruments.processed(self.cached, &self.message, outcome, error_type, seconds, context);
        }
    }
}

impl Drop for Processing<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Ended explicitly, because other holders of the context would keep the span open.
            self.cx.span().end();
        }
    }
}
