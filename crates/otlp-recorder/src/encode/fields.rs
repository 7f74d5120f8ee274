//! Field numbers of the OTLP messages that this crate writes, from `opentelemetry/proto` 1.x.

/// `ExportTraceServiceRequest` and `ExportLogsServiceRequest`, which have the same shape.
pub(super) mod export_request {
    pub(crate) const RESOURCE_GROUPS: u32 = 1;
}

/// `ResourceSpans` and `ResourceLogs`.
pub(super) mod resource_group {
    pub(crate) const RESOURCE: u32 = 1;
    pub(crate) const SCOPE_GROUPS: u32 = 2;
    pub(crate) const SCHEMA_URL: u32 = 3;
}

/// `ScopeSpans` and `ScopeLogs`.
pub(super) mod scope_group {
    pub(crate) const SCOPE: u32 = 1;
    pub(crate) const ENTRIES: u32 = 2;
    pub(crate) const SCHEMA_URL: u32 = 3;
}

/// `Span`.
pub(super) mod span {
    pub(crate) const TRACE_ID: u32 = 1;
    pub(crate) const SPAN_ID: u32 = 2;
    pub(crate) const TRACE_STATE: u32 = 3;
    pub(crate) const PARENT_SPAN_ID: u32 = 4;
    pub(crate) const NAME: u32 = 5;
    pub(crate) const KIND: u32 = 6;
    pub(crate) const START_TIME: u32 = 7;
    pub(crate) const END_TIME: u32 = 8;
    pub(crate) const ATTRIBUTES: u32 = 9;
    pub(crate) const DROPPED_ATTRIBUTES: u32 = 10;
    pub(crate) const EVENTS: u32 = 11;
    pub(crate) const DROPPED_EVENTS: u32 = 12;
    pub(crate) const LINKS: u32 = 13;
    pub(crate) const DROPPED_LINKS: u32 = 14;
    pub(crate) const STATUS: u32 = 15;
    pub(crate) const FLAGS: u32 = 16;
}

/// `Span.Event`.
pub(super) mod span_event {
    pub(crate) const TIME: u32 = 1;
    pub(crate) const NAME: u32 = 2;
    pub(crate) const ATTRIBUTES: u32 = 3;
    pub(crate) const DROPPED_ATTRIBUTES: u32 = 4;
}

/// `Span.Link`.
pub(super) mod span_link {
    pub(crate) const TRACE_ID: u32 = 1;
    pub(crate) const SPAN_ID: u32 = 2;
    pub(crate) const TRACE_STATE: u32 = 3;
    pub(crate) const ATTRIBUTES: u32 = 4;
    pub(crate) const DROPPED_ATTRIBUTES: u32 = 5;
    pub(crate) const FLAGS: u32 = 6;
}

/// `Status`.
pub(super) mod status {
    pub(crate) const MESSAGE: u32 = 2;
    pub(crate) const CODE: u32 = 3;
}

/// `LogRecord`.
pub(super) mod log_record {
    pub(crate) const TIME: u32 = 1;
    pub(crate) const SEVERITY_NUMBER: u32 = 2;
    pub(crate) const SEVERITY_TEXT: u32 = 3;
    pub(crate) const BODY: u32 = 5;
    pub(crate) const ATTRIBUTES: u32 = 6;
    pub(crate) const DROPPED_ATTRIBUTES: u32 = 7;
    pub(crate) const FLAGS: u32 = 8;
    pub(crate) const TRACE_ID: u32 = 9;
    pub(crate) const SPAN_ID: u32 = 10;
    pub(crate) const OBSERVED_TIME: u32 = 11;
    pub(crate) const EVENT_NAME: u32 = 12;
}

/// `KeyValue`.
pub(super) mod key_value {
    pub(crate) const KEY: u32 = 1;
    pub(crate) const VALUE: u32 = 2;
}

/// `AnyValue`, a `oneof`: the present field is written even at its default.
pub(super) mod any_value {
    pub(crate) const STRING: u32 = 1;
    pub(crate) const BOOL: u32 = 2;
    pub(crate) const INT: u32 = 3;
    pub(crate) const DOUBLE: u32 = 4;
    pub(crate) const ARRAY: u32 = 5;
    pub(crate) const KEY_VALUE_LIST: u32 = 6;
    pub(crate) const BYTES: u32 = 7;
}

/// `ArrayValue` and `KeyValueList`, which have the same shape.
pub(super) mod list {
    pub(crate) const VALUES: u32 = 1;
}
