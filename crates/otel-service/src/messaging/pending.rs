//! Drop guards for operations in progress: a message being sent, a task being run, a Redis command. A message or command
//! whose guard is dropped early is recorded as cancelled.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};

use super::known::KnownTask;
use super::measures::instruments;
use super::{Processed, TaskMessage};
use crate::context;
use crate::db;
use crate::failure::{self, Failure, record_failure};
use crate::metrics::{Durations, SERIES_LIMIT, Series, Table};
use crate::names::attribute;
use crate::recording::KnownAttributes;
use crate::stopwatch::Stopwatch;

/// A message being sent to the broker.
///
/// Dropping it without [`Sending::finish`] records a cancellation.
#[derive(Debug)]
pub struct Sending {
    pub(super) cx: Context,
    pub(super) queue: String,
    pub(super) finished: bool,
}

impl Sending {
    /// Returns the propagation headers to write into the message.
    pub fn headers(&self) -> Vec<(String, String)> {
        context::inject(&self.cx)
    }

    /// Returns the context to send the message in, which makes broker commands children of the span.
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// Ends the span with the reply of the broker.
    pub fn finish(mut self, result: Result<(), &dyn Failure>) {
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
            let error_type = failure::record_unfinished(&self.cx);
            self.end(Some(error_type));
        }
    }
}

/// A task being run.
///
/// Dropping it without [`Processing::finish`] ends the span, but records no metrics.
#[derive(Debug)]
pub struct Processing<'a> {
    pub(super) cx: Context,
    pub(super) message: TaskMessage<'a>,
    pub(super) known: Option<&'a KnownTask>,
    pub(super) stopwatch: Stopwatch,
    pub(super) finished: bool,
}

impl Processing<'_> {
    /// Returns the context to run the task in.
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// Ends the span and records the metrics.
    pub fn finish(mut self, processed: Processed) {
        self.finished = true;
        let Processed { outcome, exception } = processed;
        let span = self.cx.span();
        span.set_attribute(KeyValue::new(attribute::CELERY_STATE, outcome.state()));
        let mut error_type = None;
        if let Some((kind, text)) = exception {
            error_type = Some(kind.clone());
            failure::record(&self.cx, kind, text);
        }
        let elapsed = self.stopwatch.elapsed();
        self.stopwatch.end(&self.cx, elapsed);
        if let Some(instruments) = instruments() {
            let (message, seconds) = (&self.message, elapsed.as_secs_f64());
            instruments.processed(
                self.known,
                message,
                outcome,
                error_type,
                seconds,
                span.span_context(),
            );
        }
    }
}

impl Drop for Processing<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Other holders of the context would keep the span open.
            self.cx.span().end();
        }
    }
}

/// The Redis server that commands are sent to.
#[derive(Debug)]
pub(super) struct Redis {
    /// Attributes common to all commands: system, namespace, server.
    pub(super) fixed: Vec<KeyValue>,
    /// Cached span attributes by operation and text.
    known: Table<(&'static str, &'static str), KnownAttributes>,
    /// Durations of successful commands by operation.
    succeeded: Table<&'static str, Series>,
}

impl Redis {
    pub(super) fn new(fixed: Vec<KeyValue>) -> Self {
        Self {
            fixed,
            known: Table::new(SERIES_LIMIT),
            succeeded: Table::new(SERIES_LIMIT),
        }
    }

    /// Returns the cached attributes of a command, or `None` if the limit is reached.
    pub(super) fn known(&self, operation: &'static str, text: &'static str) -> Option<&KnownAttributes> {
        self.known.get(&(operation, text), KnownAttributes::default)
    }

    fn attributes(
        &self,
        operation: &'static str,
        error_type: Option<Cow<'static, str>>,
        status_code: Option<String>,
    ) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(self.fixed.len() + 3);
        attributes.extend_from_slice(&self.fixed);
        attributes.push(KeyValue::new("db.operation.name", operation));
        if let Some(error_type) = error_type {
            attributes.push(KeyValue::new("error.type", error_type));
        }
        if let Some(code) = status_code {
            attributes.push(KeyValue::new("db.response.status_code", code));
        }
        attributes
    }
}

/// A Redis command in progress.
///
/// Dropping it without [`Command::finish`] records a cancellation.
#[derive(Debug)]
pub struct Command {
    pub(super) cx: Context,
    pub(super) redis: Arc<Redis>,
    pub(super) operation: &'static str,
    pub(super) stopwatch: Stopwatch,
    pub(super) status_code: Option<String>,
    pub(super) error_type: Option<Cow<'static, str>>,
    pub(super) answered: bool,
}

impl Command {
    /// Ends the span with the reply of the server.
    pub fn finish(mut self, result: Result<(), &dyn Failure>) {
        self.answered = true;
        self.error_type = result.err().and_then(|failure| record_failure(&self.cx, failure));
    }

    /// Ends the span with an error reply, whose code (such as `WRONGTYPE`) becomes `db.response.status_code`.
    pub fn refused(mut self, code: String, failure: &dyn Failure) {
        self.cx
            .span()
            .set_attribute(KeyValue::new("db.response.status_code", code.clone()));
        self.status_code = Some(code);
        self.finish(Err(failure));
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if !self.answered {
            self.error_type = Some(failure::record_unfinished(&self.cx));
        }
        let elapsed = self.stopwatch.elapsed();
        if let Some(duration) = db::duration() {
            self.measure(duration, elapsed.as_secs_f64());
        }
        self.stopwatch.end(&self.cx, elapsed);
    }
}

impl Command {
    fn measure(&mut self, duration: &Durations, seconds: f64) {
        let (error_type, status_code) = (self.error_type.take(), self.status_code.take());
        let span = self.cx.span();
        if error_type.is_none() && status_code.is_none() {
            let bind = || duration.series(&self.redis.attributes(self.operation, None, None));
            if let Some(series) = self.redis.succeeded.get(&self.operation, bind) {
                series.record(seconds, span.span_context());
                return;
            }
        }
        let attributes = self.redis.attributes(self.operation, error_type, status_code);
        duration.record(seconds, &attributes, span.span_context());
    }
}
