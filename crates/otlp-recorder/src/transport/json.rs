//! The JSON encoding of OTLP (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>): names in
//! lowerCamelCase, ids in hexadecimal, 64-bit integers as strings, enums as numbers, infinities and NaN by
//! name, and no fields at their defaults. The serde implementation of `opentelemetry-proto` writes nulls and
//! cannot write infinities.

mod metrics;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use prost::bytes::Bytes;
use serde_json::{Map, Value, json};

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

fn key_value(attribute: &KeyValue) -> Fields {
    Fields::new()
        .text("key", &attribute.key)
        .message("value", attribute.value.as_ref().map(any_value))
        .number("keyStrindex", attribute.key_strindex)
}

/// Writes the member of a `oneof`, even at its default.
fn any_value(value: &AnyValue) -> Fields {
    let fields = Fields::new();
    let Some(value) = &value.value else {
        return fields;
    };
    match value {
        Any::StringValue(text) => fields.put("stringValue", text.as_str()),
        Any::BoolValue(truth) => fields.put("boolValue", *truth),
        Any::IntValue(number) => fields.put("intValue", number.to_string()),
        Any::DoubleValue(number) => fields.put("doubleValue", double(*number)),
        Any::ArrayValue(array) => {
            let array = Fields::new().list("values", &array.values, any_value);
            fields.message("arrayValue", Some(array))
        }
        Any::KvlistValue(list) => {
            let list = Fields::new().list("values", &list.values, key_value);
            fields.message("kvlistValue", Some(list))
        }
        Any::BytesValue(bytes) => fields.put("bytesValue", base64(bytes)),
        Any::StringValueStrindex(index) => fields.put("stringValueStrindex", *index),
    }
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn double(number: f64) -> Value {
    if number.is_finite() {
        return json!(number);
    }
    if number.is_nan() {
        return json!("NaN");
    }
    json!(if number > 0.0 { "Infinity" } else { "-Infinity" })
}

/// The fields of one message.
struct Fields(Map<String, Value>);

impl Fields {
    fn new() -> Self {
        Self(Map::new())
    }

    fn put(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn text(self, name: &str, text: &str) -> Self {
        if text.is_empty() {
            self
        } else {
            self.put(name, text)
        }
    }

    fn id(self, name: &str, bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.text(name, &hex)
    }

    fn number(self, name: &str, number: impl Into<i64>) -> Self {
        match number.into() {
            0 => self,
            number => self.put(name, number),
        }
    }

    fn long(self, name: &str, number: u64) -> Self {
        if number == 0 {
            self
        } else {
            self.put(name, number.to_string())
        }
    }

    fn truth(self, name: &str, truth: bool) -> Self {
        if truth { self.put(name, true) } else { self }
    }

    /// Writes a field with presence, even at its default.
    fn optional(self, name: &str, number: Option<f64>) -> Self {
        match number {
            Some(number) => self.put(name, double(number)),
            None => self,
        }
    }

    fn message(self, name: &str, fields: Option<Self>) -> Self {
        match fields {
            Some(fields) => self.put(name, fields.0),
            None => self,
        }
    }

    fn list<T>(self, name: &str, items: &[T], fields: impl Fn(&T) -> Self) -> Self {
        self.values(name, items, |item| Value::Object(fields(item).0))
    }

    fn values<T>(self, name: &str, items: &[T], value: impl Fn(&T) -> Value) -> Self {
        if items.is_empty() {
            return self;
        }
        self.put(name, items.iter().map(value).collect::<Vec<_>>())
    }

    fn attributes(self, attributes: &[KeyValue], dropped: u32) -> Self {
        self.list("attributes", attributes, key_value)
            .number("droppedAttributesCount", dropped)
    }

    fn resource(self, resource: Option<&Resource>) -> Self {
        let fields = |resource: &Resource| {
            Self::new()
                .attributes(&resource.attributes, resource.dropped_attributes_count)
                .list("entityRefs", &resource.entity_refs, entity)
        };
        self.message("resource", resource.map(fields))
    }

    fn scope(self, scope: Option<&InstrumentationScope>) -> Self {
        let fields = |scope: &InstrumentationScope| {
            Self::new()
                .text("name", &scope.name)
                .text("version", &scope.version)
                .attributes(&scope.attributes, scope.dropped_attributes_count)
        };
        self.message("scope", scope.map(fields))
    }
}

fn entity(entity: &EntityRef) -> Fields {
    let text = |text: &String| Value::from(text.as_str());
    Fields::new()
        .text("schemaUrl", &entity.schema_url)
        .text("type", &entity.r#type)
        .values("idKeys", &entity.id_keys, text)
        .values("descriptionKeys", &entity.description_keys, text)
}

#[cfg(test)]
mod tests;
