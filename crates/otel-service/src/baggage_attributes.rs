//! Copies baggage to the attributes of spans and log records.

use std::time::Duration;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::logs::LogRecord;
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

/// Copies the entries whose key the function accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaggageProcessor(pub(crate) fn(&str) -> bool);

impl BaggageProcessor {
    fn attributes(self, cx: &Context) -> Vec<KeyValue> {
        let baggage = cx.baggage().iter();
        let copied = baggage.filter(|(key, _)| self.0(key.as_str()));
        copied
            .map(|(key, (value, _))| KeyValue::new(key.clone(), value.clone()))
            .collect()
    }
}

impl SpanProcessor for BaggageProcessor {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        span.set_attributes(self.attributes(cx));
    }

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl LogProcessor for BaggageProcessor {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        for attribute in Context::map_current(|cx| self.attributes(cx)) {
            record.add_attribute(attribute.key, attribute.value.as_str().into_owned());
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
