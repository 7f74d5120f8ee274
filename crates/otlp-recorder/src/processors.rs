//! Processors for the SDK's providers, which put the spans of SDK tracers and log records into the queues of the
//! pipeline.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::Span as _;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use crate::encode::{Batch, LogEncoder, encode_sdk_span, size};
use crate::queue::Queue;
use crate::span_counts::SpanCounts;
use crate::text::TextRules;

/// An SDK span processor that puts sampled spans into the queue of the pipeline.
#[derive(Clone, Debug)]
pub struct QueueSpanProcessor {
    pub(crate) queue: Arc<Queue<Batch>>,
    pub(crate) rules: TextRules,
    pub(crate) counts: Arc<SpanCounts>,
}

impl SpanProcessor for QueueSpanProcessor {
    fn on_start(&self, span: &mut Span, _: &Context) {
        self.counts.start_sdk(span.span_context().is_sampled());
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            encode_sdk_span(self.rules, &span, |encoded| {
                self.queue.push(size(encoded), |batch| {
                    batch.add_to_scope(&span.instrumentation_scope, None, encoded);
                });
            });
        } else {
            self.counts.end_record_only();
        }
    }

    /// Requests an export without waiting for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush();
        Ok(())
    }

    /// Closes the queue. The export thread sends the remaining spans.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.queue.close();
        Ok(())
    }
}

/// An SDK log processor that puts records into the queue of the pipeline.
///
/// As with the SDK's own exporter, a record with a target is exported in a scope named after the target.
#[derive(Clone, Debug)]
pub struct QueueLogProcessor {
    pub(crate) queue: Arc<Queue<Batch>>,
    pub(crate) encoder: LogEncoder,
}

impl LogProcessor for QueueLogProcessor {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        let target = record.target().map(AsRef::as_ref);
        self.encoder.encode(record, |encoded| {
            self.queue.push(encoded.len(), |batch| {
                batch.add_to_scope(scope, target, &[encoded]);
            });
        });
    }

    /// Requests an export without waiting for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush();
        Ok(())
    }

    /// Closes the queue. The export thread sends the remaining records.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.queue.close();
        Ok(())
    }
}
