//! An outgoing call: its client span and its duration.

use std::borrow::Cow;
use std::net::SocketAddr;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};
use otlp_recorder::{Attributes, DurationHistogram, SpanStart};

use crate::exceptions::{Operation, record_exception};
use crate::failure;
use crate::recorder::OWN;
use crate::stopwatch::Stopwatch;

/// A call in progress. Dropping it records a cancellation.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) cx: Context,
    stopwatch: Stopwatch,
    operation: Operation,
    duration: Option<&'static DurationHistogram>,
    /// Attributes of the duration.
    labels: Vec<KeyValue>,
    is_ended: bool,
}

impl Call {
    /// Starts a call with the span `name`. `labels` are attributes of the span and of the duration; `describe` sets
    /// attributes of the span only.
    pub(super) fn start(
        name: Cow<'static, str>,
        operation: Operation,
        duration: Option<&'static DurationHistogram>,
        labels: Vec<KeyValue>,
        describe: impl FnOnce(&mut Attributes),
    ) -> Self {
        let stopwatch = Stopwatch::start();
        let start = SpanStart::new(name, SpanKind::Client).time(stopwatch.time());
        let cx = OWN.start(&Context::current(), start, |into| {
            labels.iter().for_each(|label| into.set(label));
            describe(into);
        });
        Self {
            cx,
            stopwatch,
            operation,
            duration,
            labels,
            is_ended: false,
        }
    }

    /// Sets an attribute of the span and of the duration.
    pub(super) fn label(&mut self, key: &'static str, value: impl Into<Value>) {
        let label = KeyValue::new(key, value);
        self.cx.span().set_attribute(label.clone());
        self.labels.push(label);
    }

    /// Records the address of the other end of the connection.
    pub(super) fn reached(&self, peer: Option<SocketAddr>) {
        if let Some(peer) = peer {
            let address = KeyValue::new("network.peer.address", peer.ip().to_string());
            let port = KeyValue::new("network.peer.port", i64::from(peer.port()));
            self.cx.span().set_attributes([address, port]);
        }
    }

    /// Records that the response is an error.
    pub(super) fn refused(&mut self, error_type: Cow<'static, str>, description: String) {
        self.label("error.type", error_type);
        self.cx.span().set_status(Status::error(description));
    }

    /// Records that there is no response, and ends the call.
    pub(super) fn failed(&mut self, error_type: &'static str, message: String) {
        self.labels.push(KeyValue::new("error.type", error_type));
        record_exception(&self.cx, self.operation, error_type.into(), message);
        self.end();
    }

    /// Records the duration and ends the span.
    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        let elapsed = self.stopwatch.elapsed();
        if let Some(duration) = self.duration {
            let span = self.cx.span();
            duration.record(elapsed.as_secs_f64(), &self.labels, span.span_context());
        }
        self.stopwatch.end(&self.cx, elapsed);
    }

    /// Runs one poll of the call with its span as the current span.
    pub(super) fn poll<T>(&self, poll: impl FnOnce() -> T) -> T {
        let _attached = self.cx.clone().attach();
        poll()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_ended {
            let error_type = failure::record_unfinished(&self.cx);
            self.labels.push(KeyValue::new("error.type", error_type));
            self.end();
        }
    }
}
