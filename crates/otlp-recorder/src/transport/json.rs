//! The JSON encoding of OTLP (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>): names in
//! lowerCamelCase, ids in hexadecimal, 64-bit integers as strings, enums as numbers, infinities and NaN by
//! name, and no fields at their defaults. The serde implementation of `opentelemetry-proto` writes nulls and
//! cannot write infinities.

mod fields;
mod metrics;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use prost::bytes::Bytes;
use serde_json::Value;

use self::fields::{Fields, any_value};
use crate::destination::Request;
use crate::signal::Signal;

/// Returns `request` as an `application/json` body.
pub(super) fn body(request: &Request) -> Vec<u8> {
    let message = request.protobuf().clone();
    let value = match request.signal() {
        Signal::Traces => {
            let request = decoded::<ExportTraceServiceRequest>(message);
            Fields::new().list("resourceSpans", &request.resource_spans, |group| {
                Fields::new()
                    .resource(group.resource.as_ref())
                    .list("scopeSpans", &group.scope_spans, |scope| {
                        Fields::new()
                            .scope(scope.scope.as_ref())
                            .list("spans", &scope.spans, span)
                            .text("schemaUrl", &scope.schema_url)
                    })
                    .text("schemaUrl", &group.schema_url)
            })
        }
        Signal::Metrics => {
            let request = decoded::<ExportMetricsServiceRequest>(message);
            Fields::new().list("resourceMetrics", &request.resource_metrics, |group| {
                Fields::new()
                    .resource(group.resource.as_ref())
                    .list("scopeMetrics", &group.scope_metrics, |scope| {
                        Fields::new()
                            .scope(scope.scope.as_ref())
                            .list("metrics", &scope.metrics, metrics::metric)
                            .text("schemaUrl", &scope.schema_url)
                    })
                    .text("schemaUrl", &group.schema_url)
            })
        }
        Signal::Logs => {
            let request = decoded::<ExportLogsServiceRequest>(message);
            Fields::new().list("resourceLogs", &request.resource_logs, |group| {
                Fields::new()
                    .resource(group.resource.as_ref())
                    .list("scopeLogs", &group.scope_logs, |scope| {
                        Fields::new()
                            .scope(scope.scope.as_ref())
                            .list("logRecords", &scope.log_records, log_record)
                            .text("schemaUrl", &scope.schema_url)
                    })
                    .text("schemaUrl", &group.schema_url)
            })
        }
    };
    Value::Object(value.0).to_string().into_bytes()
}

fn decoded<M: Message + Default>(message: Bytes) -> M {
    M::decode(message).expect("the request was encoded by this crate")
}

fn span(span: &Span) -> Fields {
    Fields::new()
        .id("traceId", &span.trace_id)
        .id("spanId", &span.span_id)
        .text("traceState", &span.trace_state)
        .id("parentSpanId", &span.parent_span_id)
        .number("flags", span.flags)
        .text("name", &span.name)
        .number("kind", span.kind)
        .long("startTimeUnixNano", span.start_time_unix_nano)
        .long("endTimeUnixNano", span.end_time_unix_nano)
        .attributes(&span.attributes, span.dropped_attributes_count)
        .list("events", &span.events, event)
        .number("droppedEventsCount", span.dropped_events_count)
        .list("links", &span.links, link)
        .number("droppedLinksCount", span.dropped_links_count)
        .message("status", span.status.as_ref().map(status))
}

fn event(event: &Event) -> Fields {
    Fields::new()
        .long("timeUnixNano", event.time_unix_nano)
        .text("name", &event.name)
        .attributes(&event.attributes, event.dropped_attributes_count)
}

fn link(link: &Link) -> Fields {
    Fields::new()
        .id("traceId", &link.trace_id)
        .id("spanId", &link.span_id)
        .text("traceState", &link.trace_state)
        .attributes(&link.attributes, link.dropped_attributes_count)
        .number("flags", link.flags)
}

fn status(status: &Status) -> Fields {
    Fields::new()
        .text("message", &status.message)
        .number("code", status.code)
}

fn log_record(log: &LogRecord) -> Fields {
    Fields::new()
        .long("timeUnixNano", log.time_unix_nano)
        .long("observedTimeUnixNano", log.observed_time_unix_nano)
        .number("severityNumber", log.severity_number)
        .text("severityText", &log.severity_text)
        .message("body", log.body.as_ref().map(any_value))
        .attributes(&log.attributes, log.dropped_attributes_count)
        .number("flags", log.flags)
        .id("traceId", &log.trace_id)
        .id("spanId", &log.span_id)
        .text("eventName", &log.event_name)
}

#[cfg(test)]
mod tests;
