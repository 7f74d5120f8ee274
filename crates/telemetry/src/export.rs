//! Between the SDK's batches and the OTLP exporter: spans are tidied and masked here, on the SDK's own threads, and an
//! outage of the collector is logged once when it starts and once when it is over.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::Status;
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::mask::{mask, mask_attributes};

/// The target of the exporters' own log events, which go to standard output only.
pub(crate) const TARGET: &str = "telemetry::export";

/// Whether one signal reaches its collector.
#[derive(Debug)]
pub(crate) struct Delivery {
    signal: &'static str,
    failing: AtomicBool,
    lost: AtomicU64,
}

impl Delivery {
    pub(crate) fn new(signal: &'static str) -> Arc<Self> {
        Arc::new(Self {
            signal,
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        })
    }

    /// Whether the last export failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    fn note(&self, result: &OTelSdkResult, items: u64) {
        match result {
            Ok(()) => {
                if self.failing.swap(false, Ordering::AcqRel) {
                    let lost = self.lost.swap(0, Ordering::AcqRel);
                    tracing::info!(
                        target: TARGET,
                        signal = self.signal,
                        lost,
                        "telemetry is delivered again"
                    );
                }
            }
            Err(error) => {
                self.lost.fetch_add(items, Ordering::AcqRel);
                if !self.failing.swap(true, Ordering::AcqRel) {
                    tracing::warn!(
                        target: TARGET,
                        signal = self.signal,
                        error = %error,
                        "telemetry cannot be delivered; it is dropped until the collector answers"
                    );
                }
            }
        }
    }
}

/// What is done to the attributes of a span before it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tidy {
    pub(crate) masking: bool,
    /// The longest text in characters.
    pub(crate) value_limit: Option<usize>,
}

impl Tidy {
    fn span(self, span: &mut SpanData) {
        self.attributes(&mut span.attributes);
        for event in &mut span.events.events {
            self.attributes(&mut event.attributes);
        }
        if self.masking
            && let Status::Error { description } = &span.status
            && let Cow::Owned(masked) = mask(description)
        {
            span.status = Status::error(masked);
        }
    }

    fn attributes(self, attributes: &mut Vec<KeyValue>) {
        keep_last(attributes);
        if self.masking {
            mask_attributes(attributes);
        }
        if let Some(limit) = self.value_limit {
            for attribute in attributes {
                if let Value::String(text) = &mut attribute.value
                    && let Some(short) = truncated(text.as_str(), limit)
                {
                    *text = short.to_owned().into();
                }
            }
        }
    }
}

/// `text` cut to `limit` characters; `None` when it is not longer.
pub(crate) fn truncated(text: &str, limit: usize) -> Option<&str> {
    text.char_indices().nth(limit).map(|(end, _)| &text[..end])
}

/// The SDK keeps every value that a key was given; OTLP allows one, and the last one counts.
fn keep_last(attributes: &mut Vec<KeyValue>) {
    let repeats = attributes.iter().enumerate().any(|(index, attribute)| {
        attributes[..index]
            .iter()
            .any(|earlier| earlier.key == attribute.key)
    });
    if !repeats {
        return;
    }
    let mut seen = HashSet::new();
    attributes.reverse();
    attributes.retain(|attribute| seen.insert(attribute.key.clone()));
    attributes.reverse();
}

/// Spans on their way out.
#[derive(Debug)]
pub(crate) struct Spans<E> {
    pub(crate) inner: E,
    pub(crate) tidy: Tidy,
    pub(crate) delivery: Arc<Delivery>,
}

impl<E: SpanExporter> SpanExporter for Spans<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        for span in &mut batch {
            self.tidy.span(span);
        }
        let items = batch.len() as u64;
        let result = self.inner.export(batch).await;
        self.delivery.note(&result, items);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Log records on their way out; they were masked when they were made.
#[derive(Debug)]
pub(crate) struct Logs<E> {
    pub(crate) inner: E,
    pub(crate) delivery: Arc<Delivery>,
}

impl<E: LogExporter> LogExporter for Logs<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count() as u64;
        let result = self.inner.export(batch).await;
        self.delivery.note(&result, items);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Metrics on their way out. Their attributes are of bounded variety and hold no personal data.
#[derive(Debug)]
pub(crate) struct Metrics<E> {
    pub(crate) inner: E,
    pub(crate) delivery: Arc<Delivery>,
}

impl<E: PushMetricExporter> PushMetricExporter for Metrics<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        self.delivery.note(&result, 1);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_key_is_kept() {
        let mut attributes = vec![
            KeyValue::new("user.id", 1),
            KeyValue::new("a", "x"),
            KeyValue::new("user.id", 2),
        ];
        keep_last(&mut attributes);
        assert_eq!(attributes, [KeyValue::new("a", "x"), KeyValue::new("user.id", 2)]);
    }

    #[test]
    fn text_is_cut_at_characters_after_masking() {
        let tidy = Tidy {
            masking: true,
            value_limit: Some(9),
        };
        let mut attributes = vec![
            KeyValue::new("mail", "alice@example.com"),
            KeyValue::new("short", "ünïcödé"),
            KeyValue::new("number", 1_234_567_890_123),
        ];
        tidy.attributes(&mut attributes);
        assert_eq!(
            attributes,
            [
                KeyValue::new("mail", "al***@exa"),
                KeyValue::new("short", "ünïcödé"),
                KeyValue::new("number", 1_234_567_890_123),
            ]
        );
    }
}
