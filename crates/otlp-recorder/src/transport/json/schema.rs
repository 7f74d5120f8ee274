//! The fields of the OTLP messages and their JSON names, from `opentelemetry/proto` 1.x.

use Kind::*;

/// A field: its number, its JSON name, and the kind of its value.
pub(super) type Field = (u32, &'static str, Kind);

/// Translation of a value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bool,
    /// A 32-bit integer or an enum, as a number.
    Int,
    /// A `sint32`, as a number.
    ZigZag,
    /// A signed 64-bit integer, as a string.
    Long,
    /// An unsigned 64-bit integer, as a string.
    UnsignedLong,
    Double,
    Text,
    /// A trace or span id, in hexadecimal.
    Id,
    /// Bytes, in base64.
    Bytes,
    Message(&'static [Field]),
    /// A repeated message, one element at a time.
    Messages(&'static [Field]),
    /// A repeated string, one element at a time.
    Texts,
    /// Packed 64-bit numbers of fixed length.
    FixedList(&'static Kind),
    /// Packed varints.
    VarintList(&'static Kind),
}

pub(super) static TRACES: [Field; 1] = [(1, "resourceSpans", Messages(&RESOURCE_SPANS))];
pub(super) static METRICS: [Field; 1] = [(1, "resourceMetrics", Messages(&RESOURCE_METRICS))];
pub(super) static LOGS: [Field; 1] = [(1, "resourceLogs", Messages(&RESOURCE_LOGS))];

static RESOURCE_SPANS: [Field; 3] = resource_group("scopeSpans", &SCOPE_SPANS);
static RESOURCE_METRICS: [Field; 3] = resource_group("scopeMetrics", &SCOPE_METRICS);
static RESOURCE_LOGS: [Field; 3] = resource_group("scopeLogs", &SCOPE_LOGS);

static SCOPE_SPANS: [Field; 3] = scope_group("spans", &SPAN);
static SCOPE_METRICS: [Field; 3] = scope_group("metrics", &METRIC);
static SCOPE_LOGS: [Field; 3] = scope_group("logRecords", &LOG_RECORD);

const fn resource_group(name: &'static str, scope_groups: &'static [Field]) -> [Field; 3] {
    [
        (1, "resource", Message(&RESOURCE)),
        (2, name, Messages(scope_groups)),
        (3, "schemaUrl", Text),
    ]
}

const fn scope_group(name: &'static str, entries: &'static [Field]) -> [Field; 3] {
    [
        (1, "scope", Message(&SCOPE)),
        (2, name, Messages(entries)),
        (3, "schemaUrl", Text),
    ]
}

static RESOURCE: [Field; 3] = [
    (1, "attributes", Messages(&KEY_VALUE)),
    (2, "droppedAttributesCount", Int),
    (3, "entityRefs", Messages(&ENTITY_REF)),
];

static ENTITY_REF: [Field; 4] = [
    (1, "schemaUrl", Text),
    (2, "type", Text),
    (3, "idKeys", Texts),
    (4, "descriptionKeys", Texts),
];

static SCOPE: [Field; 4] = [
    (1, "name", Text),
    (2, "version", Text),
    (3, "attributes", Messages(&KEY_VALUE)),
    (4, "droppedAttributesCount", Int),
];

static KEY_VALUE: [Field; 3] = [
    (1, "key", Text),
    (2, "value", Message(&ANY_VALUE)),
    (3, "keyStrindex", Int),
];

static ANY_VALUE: [Field; 8] = [
    (1, "stringValue", Text),
    (2, "boolValue", Bool),
    (3, "intValue", Long),
    (4, "doubleValue", Double),
    (5, "arrayValue", Message(&ARRAY_VALUE)),
    (6, "kvlistValue", Message(&KEY_VALUE_LIST)),
    (7, "bytesValue", Bytes),
    (8, "stringValueStrindex", Int),
];

static ARRAY_VALUE: [Field; 1] = [(1, "values", Messages(&ANY_VALUE))];

static KEY_VALUE_LIST: [Field; 1] = [(1, "values", Messages(&KEY_VALUE))];

static SPAN: [Field; 16] = [
    (1, "traceId", Id),
    (2, "spanId", Id),
    (3, "traceState", Text),
    (4, "parentSpanId", Id),
    (5, "name", Text),
    (6, "kind", Int),
    (7, "startTimeUnixNano", UnsignedLong),
    (8, "endTimeUnixNano", UnsignedLong),
    (9, "attributes", Messages(&KEY_VALUE)),
    (10, "droppedAttributesCount", Int),
    (11, "events", Messages(&EVENT)),
    (12, "droppedEventsCount", Int),
    (13, "links", Messages(&LINK)),
    (14, "droppedLinksCount", Int),
    (15, "status", Message(&STATUS)),
    (16, "flags", Int),
];

static EVENT: [Field; 4] = [
    (1, "timeUnixNano", UnsignedLong),
    (2, "name", Text),
    (3, "attributes", Messages(&KEY_VALUE)),
    (4, "droppedAttributesCount", Int),
];

static LINK: [Field; 6] = [
    (1, "traceId", Id),
    (2, "spanId", Id),
    (3, "traceState", Text),
    (4, "attributes", Messages(&KEY_VALUE)),
    (5, "droppedAttributesCount", Int),
    (6, "flags", Int),
];

static STATUS: [Field; 2] = [(2, "message", Text), (3, "code", Int)];

static LOG_RECORD: [Field; 11] = [
    (1, "timeUnixNano", UnsignedLong),
    (2, "severityNumber", Int),
    (3, "severityText", Text),
    (5, "body", Message(&ANY_VALUE)),
    (6, "attributes", Messages(&KEY_VALUE)),
    (7, "droppedAttributesCount", Int),
    (8, "flags", Int),
    (9, "traceId", Id),
    (10, "spanId", Id),
    (11, "observedTimeUnixNano", UnsignedLong),
    (12, "eventName", Text),
];

static METRIC: [Field; 9] = [
    (1, "name", Text),
    (2, "description", Text),
    (3, "unit", Text),
    (5, "gauge", Message(&GAUGE)),
    (7, "sum", Message(&SUM)),
    (9, "histogram", Message(&HISTOGRAM)),
    (10, "exponentialHistogram", Message(&EXPONENTIAL_HISTOGRAM)),
    (11, "summary", Message(&SUMMARY)),
    (12, "metadata", Messages(&KEY_VALUE)),
];

static GAUGE: [Field; 1] = [(1, "dataPoints", Messages(&NUMBER_POINT))];

static SUM: [Field; 3] = [
    (1, "dataPoints", Messages(&NUMBER_POINT)),
    (2, "aggregationTemporality", Int),
    (3, "isMonotonic", Bool),
];

static HISTOGRAM: [Field; 2] = [
    (1, "dataPoints", Messages(&HISTOGRAM_POINT)),
    (2, "aggregationTemporality", Int),
];

static EXPONENTIAL_HISTOGRAM: [Field; 2] = [
    (1, "dataPoints", Messages(&EXPONENTIAL_POINT)),
    (2, "aggregationTemporality", Int),
];

static SUMMARY: [Field; 1] = [(1, "dataPoints", Messages(&SUMMARY_POINT))];

static NUMBER_POINT: [Field; 7] = [
    (2, "startTimeUnixNano", UnsignedLong),
    (3, "timeUnixNano", UnsignedLong),
    (4, "asDouble", Double),
    (5, "exemplars", Messages(&EXEMPLAR)),
    (6, "asInt", Long),
    (7, "attributes", Messages(&KEY_VALUE)),
    (8, "flags", Int),
];

static HISTOGRAM_POINT: [Field; 11] = [
    (2, "startTimeUnixNano", UnsignedLong),
    (3, "timeUnixNano", UnsignedLong),
    (4, "count", UnsignedLong),
    (5, "sum", Double),
    (6, "bucketCounts", FixedList(&UnsignedLong)),
    (7, "explicitBounds", FixedList(&Double)),
    (8, "exemplars", Messages(&EXEMPLAR)),
    (9, "attributes", Messages(&KEY_VALUE)),
    (10, "flags", Int),
    (11, "min", Double),
    (12, "max", Double),
];

static EXPONENTIAL_POINT: [Field; 14] = [
    (1, "attributes", Messages(&KEY_VALUE)),
    (2, "startTimeUnixNano", UnsignedLong),
    (3, "timeUnixNano", UnsignedLong),
    (4, "count", UnsignedLong),
    (5, "sum", Double),
    (6, "scale", ZigZag),
    (7, "zeroCount", UnsignedLong),
    (8, "positive", Message(&BUCKETS)),
    (9, "negative", Message(&BUCKETS)),
    (10, "flags", Int),
    (11, "exemplars", Messages(&EXEMPLAR)),
    (12, "min", Double),
    (13, "max", Double),
    (14, "zeroThreshold", Double),
];

static BUCKETS: [Field; 2] = [
    (1, "offset", ZigZag),
    (2, "bucketCounts", VarintList(&UnsignedLong)),
];

static SUMMARY_POINT: [Field; 7] = [
    (2, "startTimeUnixNano", UnsignedLong),
    (3, "timeUnixNano", UnsignedLong),
    (4, "count", UnsignedLong),
    (5, "sum", Double),
    (6, "quantileValues", Messages(&QUANTILE)),
    (7, "attributes", Messages(&KEY_VALUE)),
    (8, "flags", Int),
];

static QUANTILE: [Field; 2] = [(1, "quantile", Double), (2, "value", Double)];

static EXEMPLAR: [Field; 6] = [
    (2, "timeUnixNano", UnsignedLong),
    (3, "asDouble", Double),
    (4, "spanId", Id),
    (5, "traceId", Id),
    (6, "asInt", Long),
    (7, "filteredAttributes", Messages(&KEY_VALUE)),
];
