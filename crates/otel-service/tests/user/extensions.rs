//! Processors, exporters and samplers of the program.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::logs::AnyValue;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SimpleLogProcessor};
use opentelemetry_sdk::trace::{Sampler, SimpleSpanProcessor, SpanData, SpanExporter, SpanProcessor};
use otel_service::sampling::AlwaysRecord;
use otel_service::{Context, KeyValue};

use crate::support::{isolated, text, value};

#[test]
fn chosen_baggage_is_copied_to_spans_and_log_records() {
    let memory = isolated(
        |builder| builder.baggage_attributes(|key| key == "tenant"),
        |_| {
            let baggage = [
                KeyValue::new("tenant", "blue"),
                KeyValue::new("session", "s3cret"),
            ];
            let _attached = Context::current_with_baggage(baggage).attach();
            tracing::info_span!("order").in_scope(|| tracing::info!("placed"));
        },
    );
    let (spans, records) = (memory.spans(), memory.log_records());
    for attributes in [&spans[0].attributes, &records[0].attributes] {
        assert_eq!(text(attributes, "tenant"), "blue");
        assert_eq!(value(attributes, "session"), None);
    }
}

/// Exporters and a processor of the program.
#[derive(Clone, Debug, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl SpanExporter for Names {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let names = batch.into_iter().map(|span| span.name.into_owned());
        self.0.lock().unwrap().extend(names);
        Ok(())
    }
}

impl SpanProcessor for Names {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        assert_eq!(span.instrumentation_scope.name(), module_path!());
        self.0.lock().unwrap().push(span.name.into_owned());
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl LogExporter for Names {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let bodies = batch.iter().filter_map(|(record, _)| match record.body() {
            Some(AnyValue::String(body)) => Some(body.to_string()),
            _ => None,
        });
        self.0.lock().unwrap().extend(bodies);
        Ok(())
    }
}

#[test]
fn exporters_of_the_program_get_spans_and_log_records() {
    let names = Names::default();
    let [of_spans, of_logs] = [names.clone(), names.clone()];
    let memory = isolated(
        |builder| {
            let builder = builder.span_processor(SimpleSpanProcessor::new(of_spans));
            builder.log_processor(SimpleLogProcessor::new(of_logs))
        },
        |_| tracing::info_span!("order").in_scope(|| tracing::info!("placed")),
    );
    assert_eq!(*names.0.lock().unwrap(), ["placed", "order"]);
    assert_eq!((memory.spans().len(), memory.log_records().len()), (1, 1));
}

#[test]
fn a_span_that_is_recorded_but_not_sampled_reaches_processors_only() {
    let names = Names::default();
    let of_spans = names.clone();
    let memory = isolated(
        |builder| {
            let sampler = AlwaysRecord(Sampler::AlwaysOff);
            builder.span_processor(of_spans).sampler(sampler)
        },
        |_| {
            tracing::info_span!("unsampled").in_scope(|| {
                let cx = Context::current();
                assert!(cx.span().span_context().is_valid() && !cx.span().span_context().is_sampled());
                assert!(cx.span().is_recording());
            });
        },
    );
    assert_eq!(*names.0.lock().unwrap(), ["unsampled"]);
    assert_eq!(memory.spans(), []);
}
