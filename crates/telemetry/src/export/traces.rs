//! Spans: from their end in the SDK into the queue, and on the export thread from the queue into a request.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{self as proto, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, SpanFlags, Status as ProtoStatus, span, status,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self, SpanData, SpanProcessor};

use super::queue::Queue;

/// Puts ended spans into the queue.
#[derive(Debug)]
pub(crate) struct QueuedSpans(pub(crate) Arc<Queue<SpanData>>);

impl SpanProcessor for QueuedSpans {
    fn on_start(&self, _: &mut trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.push(span);
        }
    }

    /// Asks for an export and does not wait for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.0.flush();
        Ok(())
    }

    /// Takes no more spans; the export thread sees to those that wait.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.0.close();
        Ok(())
    }
}

/// The request of a batch, which is left empty. Texts are moved, not copied: this runs for every span there is.
pub(crate) fn request(resource: &Resource, batch: &mut Vec<SpanData>) -> ExportTraceServiceRequest {
    let mut scopes: Vec<(InstrumentationScope, Vec<Span>)> = Vec::new();
    for span in batch.drain(..) {
        let scope = &span.instrumentation_scope;
        let place = scopes.iter().rposition(|(known, _)| known == scope);
        let place = place.unwrap_or_else(|| {
            scopes.push((scope.clone(), Vec::new()));
            scopes.len() - 1
        });
        scopes[place].1.push(encoded(span));
    }
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(ProtoResource::from(resource)),
            schema_url: resource.schema_url().unwrap_or_default().to_owned(),
            scope_spans: scopes
                .into_iter()
                .map(|(scope, spans)| ScopeSpans {
                    schema_url: scope.schema_url().unwrap_or_default().to_owned(),
                    scope: Some((scope, None).into()),
                    spans,
                })
                .collect(),
        }],
    }
}

fn encoded(span: SpanData) -> Span {
    let context = &span.span_context;
    Span {
        trace_id: context.trace_id().to_bytes().to_vec(),
        span_id: context.span_id().to_bytes().to_vec(),
        trace_state: context.trace_state().header(),
        parent_span_id: if span.parent_span_id == SpanId::INVALID {
            Vec::new()
        } else {
            span.parent_span_id.to_bytes().to_vec()
        },
        flags: flags(context, span.parent_span_is_remote),
        name: span.name.into_owned(),
        kind: kind(&span.span_kind) as i32,
        start_time_unix_nano: nanoseconds(span.start_time),
        end_time_unix_nano: nanoseconds(span.end_time),
        attributes: attributes(span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        dropped_events_count: span.events.dropped_count,
        events: span.events.events.into_iter().map(event).collect(),
        dropped_links_count: span.links.dropped_count,
        links: span.links.links.into_iter().map(link).collect(),
        status: Some(status(span.status)),
    }
}

fn event(event: Event) -> span::Event {
    span::Event {
        time_unix_nano: nanoseconds(event.timestamp),
        name: event.name.into_owned(),
        attributes: attributes(event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

fn link(link: Link) -> span::Link {
    let context = &link.span_context;
    span::Link {
        trace_id: context.trace_id().to_bytes().to_vec(),
        span_id: context.span_id().to_bytes().to_vec(),
        trace_state: context.trace_state().header(),
        flags: flags(context, context.is_remote()),
        attributes: attributes(link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
    }
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

fn status(status: Status) -> ProtoStatus {
    let (code, message) = match status {
        Status::Unset => (status::StatusCode::Unset, String::new()),
        Status::Ok => (status::StatusCode::Ok, String::new()),
        Status::Error { description } => (status::StatusCode::Error, description.into_owned()),
    };
    ProtoStatus {
        code: code as i32,
        message,
    }
}

fn attributes(attributes: Vec<KeyValue>) -> Vec<proto::KeyValue> {
    attributes
        .into_iter()
        .map(|attribute| proto::KeyValue {
            key: attribute.key.into(),
            value: Some(value(attribute.value)),
            ..proto::KeyValue::default()
        })
        .collect()
}

fn value(value: Value) -> proto::AnyValue {
    match value {
        Value::String(text) => text_value(text),
        Value::Array(Array::String(texts)) => proto::AnyValue {
            value: Some(any_value::Value::ArrayValue(proto::ArrayValue {
                values: texts.into_iter().map(text_value).collect(),
            })),
        },
        plain => plain.into(),
    }
}

fn text_value(text: StringValue) -> proto::AnyValue {
    proto::AnyValue {
        value: Some(any_value::Value::StringValue(text.into())),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use opentelemetry::trace::{TraceFlags, TraceId, TraceState};
    use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
    use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    fn context(id: u64, flags: TraceFlags) -> SpanContext {
        let state = TraceState::from_key_value([("vendor", "x")]).unwrap();
        SpanContext::new(TraceId::from(7), SpanId::from(id), flags, true, state)
    }

    fn span(id: u64, scope: &'static str, status: Status) -> SpanData {
        let attributes = || {
            vec![
                KeyValue::new("text", "moved".to_owned()),
                KeyValue::new("static", "copied"),
                KeyValue::new("number", 7),
                KeyValue::new("fraction", 0.5),
                KeyValue::new("truth", true),
                KeyValue::new("texts", Value::Array(vec![StringValue::from("a")].into())),
                KeyValue::new("numbers", Value::Array(vec![1_i64, 2].into())),
            ]
        };
        let time = UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
        let mut events = SpanEvents::default();
        events.events.push(Event::new("happened", time, attributes(), 3));
        events.dropped_count = 4;
        let mut links = SpanLinks::default();
        links
            .links
            .push(Link::new(context(9, TraceFlags::SAMPLED), attributes(), 5));
        links.dropped_count = 6;
        SpanData {
            span_context: context(id, TraceFlags::SAMPLED),
            parent_span_id: SpanId::from(id - 1),
            parent_span_is_remote: id == 2,
            span_kind: SpanKind::Producer,
            name: Cow::Borrowed("work"),
            start_time: time,
            end_time: time + Duration::from_millis(5),
            attributes: attributes(),
            dropped_attributes_count: 2,
            events,
            links,
            status,
            instrumentation_scope: InstrumentationScope::builder(scope)
                .with_version("1")
                .with_schema_url("https://example.com/schema")
                .build(),
        }
    }

    /// The upstream transform copies where this module moves; the outcome is the same.
    #[test]
    fn a_request_is_what_the_upstream_transform_makes() {
        let batch = vec![
            span(1, "a", Status::Unset),
            span(2, "b", Status::Ok),
            span(3, "a", Status::error("it failed")),
        ];
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", "test"))
            .build();
        let expected =
            group_spans_by_resource_and_scope(batch.clone(), &ResourceAttributesWithSchema::from(&resource));
        let mut emptied = batch;
        let request = request(&resource, &mut emptied);
        assert_eq!(request.resource_spans, expected);
        assert!(emptied.is_empty());
    }

    #[test]
    fn spans_that_are_not_sampled_are_not_queued() {
        let queue = Arc::new(Queue::new(10, 5));
        let processor = QueuedSpans(Arc::clone(&queue));
        let mut unsampled = span(1, "a", Status::Unset);
        unsampled.span_context = context(1, TraceFlags::default());
        processor.on_end(unsampled);
        assert_eq!(queue.len(), 0);
        processor.on_end(span(2, "a", Status::Unset));
        assert_eq!(queue.len(), 1);
        processor.shutdown().unwrap();
        processor.on_end(span(3, "a", Status::Unset));
        assert_eq!(queue.len(), 1);
    }
}
