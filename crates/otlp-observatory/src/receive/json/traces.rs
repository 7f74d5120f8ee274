//! Messages of `opentelemetry/proto/trace/v1/trace.proto`.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};

use super::{
    fields::{List, Object, message},
    scalars::{Enumeration, Hex, Integer, Names, Text},
};

message!(ExportTraceServiceRequest {
    "resourceSpans" => resource_spans: List<ResourceSpans>,
});

message!(ResourceSpans {
    "resource" => optional resource: Object<Resource>,
    "scopeSpans" => scope_spans: List<ScopeSpans>,
    "schemaUrl" => schema_url: Text,
});

message!(ScopeSpans {
    "scope" => optional scope: Object<InstrumentationScope>,
    "spans" => spans: List<Span>,
    "schemaUrl" => schema_url: Text,
});

message!(Span {
    "traceId" => trace_id: Hex,
    "spanId" => span_id: Hex,
    "traceState" => trace_state: Text,
    "parentSpanId" => parent_span_id: Hex,
    "flags" => flags: Integer<u32>,
    "name" => name: Text,
    "kind" => kind: Enumeration<SpanKind>,
    "startTimeUnixNano" => start_time_unix_nano: Integer<u64>,
    "endTimeUnixNano" => end_time_unix_nano: Integer<u64>,
    "attributes" => attributes: List<KeyValue>,
    "droppedAttributesCount" => dropped_attributes_count: Integer<u32>,
    "events" => events: List<Event>,
    "droppedEventsCount" => dropped_events_count: Integer<u32>,
    "links" => links: List<Link>,
    "droppedLinksCount" => dropped_links_count: Integer<u32>,
    "status" => optional status: Object<Status>,
});

message!(Event {
    "timeUnixNano" => time_unix_nano: Integer<u64>,
    "name" => name: Text,
    "attributes" => attributes: List<KeyValue>,
    "droppedAttributesCount" => dropped_attributes_count: Integer<u32>,
});

message!(Link {
    "traceId" => trace_id: Hex,
    "spanId" => span_id: Hex,
    "traceState" => trace_state: Text,
    "attributes" => attributes: List<KeyValue>,
    "droppedAttributesCount" => dropped_attributes_count: Integer<u32>,
    "flags" => flags: Integer<u32>,
});

message!(Status {
    "message" => message: Text,
    "code" => code: Enumeration<StatusCode>,
});

impl Names for SpanKind {
    fn number(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(i32::from)
    }
}

impl Names for StatusCode {
    fn number(name: &str) -> Option<i32> {
        Self::from_str_name(name).map(i32::from)
    }
}
