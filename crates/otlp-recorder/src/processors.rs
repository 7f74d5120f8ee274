//! Processors for the SDK's providers: spans of SDK tracers and log records go through the same queues as recorded spans.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use crate::encode::{Batch, LogEncoder, encode_sdk_span};
use crate::queue::Queue;
use crate::text::TextRules;

/// An SDK span processor that puts sampled spans into the pipeline's queue.
#[derive(Clone, Debug)]
pub struct QueueSpanProcessor {
    queue: Arc<Queue<Batch>>,
    rules: TextRules,
}

impl QueueSpanProcessor {
    pub(crate) fn new(queue: Arc<Queue<Batch>>, rules: TextRules) -> Self {
        Self { queue, rules }
    }
}

impl SpanProcessor for QueueSpanProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            encode_sdk_span(self.rules, &span, |encoded| {
                self.queue
                    .push(|batch| batch.add_to_scope(&span.instrumentation_scope, None, encoded));
            });
        }
    }

    /// Requests an export and does not wait for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush();
        Ok(())
    }

    /// Closes the queue. The export thread sends the spans that are in it.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.queue.close();
        Ok(())
    }
}

/// An SDK log processor that puts records into the pipeline's queue. Records with a target are exported in a scope of that
/// name, as the SDK's own exporter does.
#[derive(Clone, Debug)]
pub struct QueueLogProcessor {
    queue: Arc<Queue<Batch>>,
    encoder: LogEncoder,
}

impl QueueLogProcessor {
    pub(crate) fn new(queue: Arc<Queue<Batch>>, encoder: LogEncoder) -> Self {
        Self { queue, encoder }
    }
}

impl LogProcessor for QueueLogProcessor {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        let target = record.target().map(AsRef::as_ref);
        self.encoder.encode(record, |encoded| {
            self.queue
                .push(|batch| batch.add_to_scope(scope, target, &[encoded]));
        });
    }

    /// Requests an export and does not wait for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush();
        Ok(())
    }

    /// Closes the queue. The export thread sends the records that are in it.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.queue.close();
        Ok(())
    }
}
