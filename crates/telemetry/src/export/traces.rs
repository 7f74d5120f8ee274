//! Spans: at their end in the SDK they are written into the queue as the bytes that they will be in a request. What is done
//! to them on the way out (one value for each key, masking, limits of length) is done while they are written.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_proto::tonic::trace::v1::{SpanFlags, span, status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self, SpanData, SpanProcessor};

use super::frame::Batch;
use super::queue::Queue;
use super::tidy::Tidy;
use super::wire::{Wire, nanoseconds, with_scratch};

/// Puts ended spans into the queue.
#[derive(Debug)]
pub(crate) struct QueuedSpans {
    queue: Arc<Queue<Batch>>,
    encoder: SpanEncoder,
}

impl QueuedSpans {
    pub(crate) fn new(queue: Arc<Queue<Batch>>, tidy: Tidy) -> Self {
        Self {
            queue,
            encoder: SpanEncoder { tidy },
        }
    }
}

impl SpanProcessor for QueuedSpans {
    fn on_start(&self, _: &mut trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            with_scratch(|entry| {
                self.encoder.entry(entry, &span);
                self.queue
                    .push(|batch| batch.add(&span.instrumentation_scope, None, entry));
            });
        }
    }

    /// Asks for an export and does not wait for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush();
        Ok(())
    }

    /// Takes no more spans; the export thread sees to those that wait.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.queue.close();
        Ok(())
    }
}

/// Writes spans. The numbers are those of the fields in OTLP's `trace/v1/trace.proto` and `common/v1/common.proto`.
#[derive(Clone, Debug)]
struct SpanEncoder {
    tidy: Tidy,
}

impl SpanEncoder {
    /// Writes `span` as a field of a `ScopeSpans`.
    fn entry(&self, wire: &mut Wire, span: &SpanData) {
        wire.long_message(2, |wire| self.span(wire, span));
    }

    fn span(&self, wire: &mut Wire, span: &SpanData) {
        let context = &span.span_context;
        wire.bytes_set(1, &context.trace_id().to_bytes());
        wire.bytes_set(2, &context.span_id().to_bytes());
        self.text(wire, 3, &context.trace_state().header());
        if span.parent_span_id != SpanId::INVALID {
            wire.bytes_set(4, &span.parent_span_id.to_bytes());
        }
        self.text(wire, 5, &span.name);
        wire.number(6, kind(&span.span_kind) as u64);
        wire.fixed64(7, nanoseconds(span.start_time));
        wire.fixed64(8, nanoseconds(span.end_time));
        self.attributes(wire, 9, &span.attributes);
        wire.number(10, span.dropped_attributes_count.into());
        for event in &span.events.events {
            wire.message(11, |wire| self.event(wire, event));
        }
        wire.number(12, span.events.dropped_count.into());
        for link in &span.links.links {
            wire.message(13, |wire| self.link(wire, link));
        }
        wire.number(14, span.links.dropped_count.into());
        wire.message(15, |wire| self.status(wire, &span.status));
        wire.fixed32(16, flags(context, span.parent_span_is_remote));
    }

    fn event(&self, wire: &mut Wire, event: &Event) {
        wire.fixed64(1, nanoseconds(event.timestamp));
        self.text(wire, 2, &event.name);
        self.attributes(wire, 3, &event.attributes);
        wire.number(4, event.dropped_attributes_count.into());
    }

    fn link(&self, wire: &mut Wire, link: &Link) {
        let context = &link.span_context;
        wire.bytes_set(1, &context.trace_id().to_bytes());
        wire.bytes_set(2, &context.span_id().to_bytes());
        self.text(wire, 3, &context.trace_state().header());
        self.attributes(wire, 4, &link.attributes);
        wire.number(5, link.dropped_attributes_count.into());
        wire.fixed32(6, flags(context, context.is_remote()));
    }

    fn status(&self, wire: &mut Wire, status: &Status) {
        let code = match status {
            Status::Unset => status::StatusCode::Unset,
            Status::Ok => status::StatusCode::Ok,
            Status::Error { description } => {
                self.text(wire, 2, description);
                status::StatusCode::Error
            }
        };
        wire.number(3, code as u64);
    }

    /// The SDK keeps every value that a key was given; OTLP allows one, and the last one counts.
    fn attributes(&self, wire: &mut Wire, field: u32, attributes: &[KeyValue]) {
        let perhaps = perhaps_repeated(attributes);
        for (index, attribute) in attributes.iter().enumerate() {
            if is_repeated(attributes, perhaps, index) {
                continue;
            }
            let key = attribute.key.as_str();
            if let Value::String(text) = &attribute.value {
                let masked = self.tidy.masked(text.as_str());
                wire.text_attribute(field, key, self.tidy.limited(&masked));
            } else {
                wire.message(field, |wire| {
                    wire.text(1, key);
                    wire.message(2, |wire| self.value(wire, &attribute.value));
                });
            }
        }
    }

    fn value(&self, wire: &mut Wire, value: &Value) {
        match value {
            Value::String(text) => self.text_value(wire, text),
            Value::Bool(truth) => wire.number_set(2, u64::from(*truth)),
            Value::I64(number) => wire.number_set(3, number.cast_unsigned()),
            Value::F64(number) => wire.double_set(4, *number),
            Value::Array(array) => wire.message(5, |wire| self.array(wire, array)),
            // A kind that a later version of the API brings.
            other => self.text_value(wire, &other.as_str().into_owned().into()),
        }
    }

    fn array(&self, wire: &mut Wire, array: &Array) {
        match array {
            Array::String(texts) => {
                for text in texts {
                    wire.message(1, |wire| self.text_value(wire, text));
                }
            }
            Array::Bool(truths) => {
                for truth in truths {
                    wire.message(1, |wire| wire.number_set(2, u64::from(*truth)));
                }
            }
            Array::I64(numbers) => {
                for number in numbers {
                    wire.message(1, |wire| wire.number_set(3, number.cast_unsigned()));
                }
            }
            Array::F64(numbers) => {
                for number in numbers {
                    wire.message(1, |wire| wire.double_set(4, *number));
                }
            }
            // A kind that a later version of the API brings.
            _ => {}
        }
    }

    /// An attribute's text, which has a limit.
    fn text_value(&self, wire: &mut Wire, text: &StringValue) {
        let masked = self.tidy.masked(text.as_str());
        wire.bytes_set(1, self.tidy.limited(&masked).as_bytes());
    }

    fn text(&self, wire: &mut Wire, field: u32, text: &str) {
        wire.text(field, &self.tidy.masked(text));
    }
}

/// Which of the first 64 attributes may have a key that comes again later, as bits: those with a key of the same length
/// behind them. Telling keys apart by their bytes is most of what looking for repeated ones takes.
fn perhaps_repeated(attributes: &[KeyValue]) -> u64 {
    let mut lengths = 0_u64;
    let mut repeated = 0;
    for (index, attribute) in attributes.iter().enumerate().rev() {
        let length = 1 << (attribute.key.as_str().len() % 64);
        if index < 64 && lengths & length != 0 {
            repeated |= 1 << index;
        }
        lengths |= length;
    }
    repeated
}

/// Whether a later attribute has the key of the one at `index`.
fn is_repeated(attributes: &[KeyValue], perhaps: u64, index: usize) -> bool {
    let is_candidate = index >= 64 || perhaps & (1 << index) != 0;
    let key = &attributes[index].key;
    is_candidate && attributes[index + 1..].iter().any(|later| later.key == *key)
}

/// The W3C flags, and above them whether the parent, or what is linked to, is in another process.
fn flags(context: &SpanContext, remote: bool) -> u32 {
    let mut flags = u32::from(context.trace_flags().to_u8()) | SpanFlags::ContextHasIsRemoteMask as u32;
    if remote {
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    flags
}

fn kind(kind: &SpanKind) -> span::SpanKind {
    match kind {
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Producer => span::SpanKind::Producer,
        SpanKind::Consumer => span::SpanKind::Consumer,
        SpanKind::Internal => span::SpanKind::Internal,
    }
}

#[cfg(test)]
mod tests;
