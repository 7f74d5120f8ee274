//! Messages of OTLP, with the JSON keys of their fields (`opentelemetry/proto/*/v1/*.proto`).

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
        SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, metric::Data,
        number_data_point, summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};

use super::values::{Base64, Enumeration, Hex, Names, message};

message!(AnyValue {
    "stringValue" => value = Value::StringValue,
    "boolValue" => value = Value::BoolValue,
    "intValue" => value = Value::IntValue,
    "doubleValue" => value = Value::DoubleValue,
    "arrayValue" => value = Value::ArrayValue,
    "kvlistValue" => value = Value::KvlistValue,
    "bytesValue" => value = bytes_value,
});

message!(ArrayValue {
    "values" => values,
});

message!(KeyValueList {
    "values" => values,
});

message!(KeyValue {
    "key" => key,
    "value" => value,
});

message!(InstrumentationScope {
    "name" => name,
    "version" => version,
    "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
});

message!(Resource {
    "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
    "entityRefs" => entity_refs,
});

message!(EntityRef {
    "schemaUrl" => schema_url,
    "type" => r#type,
    "idKeys" => id_keys,
    "descriptionKeys" => description_keys,
});

message!(ExportTraceServiceRequest {
    "resourceSpans" => resource_spans,
});

message!(ResourceSpans {
    "resource" => resource,
    "scopeSpans" => scope_spans,
    "schemaUrl" => schema_url,
});

message!(ScopeSpans {
    "scope" => scope,
    "spans" => spans,
    "schemaUrl" => schema_url,
});

message!(Span {
    "traceId" => trace_id as Hex,
    "spanId" => span_id as Hex,
    "traceState" => trace_state,
    "parentSpanId" => parent_span_id as Hex,
    "flags" => flags,
    "name" => name,
    "kind" => kind as Enumeration<SpanKind>,
    "startTimeUnixNano" => start_time_unix_nano,
    "endTimeUnixNano" => end_time_unix_nano,
    "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
    "events" => events,
    "droppedEventsCount" => dropped_events_count,
    "links" => links,
    "droppedLinksCount" => dropped_links_count,
    "status" => status,
});

message!(Event {
    "timeUnixNano" => time_unix_nano,
    "name" => name,
    "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
});

message!(Link {
    "traceId" => trace_id as Hex,
    "spanId" => span_id as Hex,
    "traceState" => trace_state,
    "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
    "flags" => flags,
});

message!(Status {
    "message" => message,
    "code" => code as Enumeration<StatusCode>,
});

message!(ExportLogsServiceRequest {
    "resourceLogs" => resource_logs,
});

message!(ResourceLogs {
    "resource" => resource,
    "scopeLogs" => scope_logs,
    "schemaUrl" => schema_url,
});

message!(ScopeLogs {
    "scope" => scope,
    "logRecords" => log_records,
    "schemaUrl" => schema_url,
});

message!(LogRecord {
    "timeUnixNano" => time_unix_nano,
    "observedTimeUnixNano" => observed_time_unix_nano,
    "severityNumber" => severity_number as Enumeration<SeverityNumber>,
    "severityText" => severity_text,
    "body" => body,
    "attributes" => attributes,
    "droppedAttributesCount" => dropped_attributes_count,
    "flags" => flags,
    "traceId" => trace_id as Hex,
    "spanId" => span_id as Hex,
    "eventName" => event_name,
});

message!(ExportMetricsServiceRequest {
    "resourceMetrics" => resource_metrics,
});

message!(ResourceMetrics {
    "resource" => resource,
    "scopeMetrics" => scope_metrics,
    "schemaUrl" => schema_url,
});

message!(ScopeMetrics {
    "scope" => scope,
    "metrics" => metrics,
    "schemaUrl" => schema_url,
});

message!(Metric {
    "name" => name,
    "description" => description,
    "unit" => unit,
    "metadata" => metadata,
    "gauge" => data = Data::Gauge,
    "sum" => data = Data::Sum,
    "histogram" => data = Data::Histogram,
    "exponentialHistogram" => data = Data::ExponentialHistogram,
    "summary" => data = Data::Summary,
});

message!(Gauge {
    "dataPoints" => data_points,
});

message!(Sum {
    "dataPoints" => data_points,
    "aggregationTemporality" => aggregation_temporality as Enumeration<AggregationTemporality>,
    "isMonotonic" => is_monotonic,
});

message!(Histogram {
    "dataPoints" => data_points,
    "aggregationTemporality" => aggregation_temporality as Enumeration<AggregationTemporality>,
});

message!(ExponentialHistogram {
    "dataPoints" => data_points,
    "aggregationTemporality" => aggregation_temporality as Enumeration<AggregationTemporality>,
});

message!(Summary {
    "dataPoints" => data_points,
});

message!(NumberDataPoint {
    "attributes" => attributes,
    "startTimeUnixNano" => start_time_unix_nano,
    "timeUnixNano" => time_unix_nano,
    "exemplars" => exemplars,
    "flags" => flags,
    "asDouble" => value = number_data_point::Value::AsDouble,
    "asInt" => value = number_data_point::Value::AsInt,
});

message!(HistogramDataPoint {
    "attributes" => attributes,
    "startTimeUnixNano" => start_time_unix_nano,
    "timeUnixNano" => time_unix_nano,
    "count" => count,
    "sum" => sum,
    "bucketCounts" => bucket_counts,
    "explicitBounds" => explicit_bounds,
    "exemplars" => exemplars,
    "flags" => flags,
    "min" => min,
    "max" => max,
});

message!(ExponentialHistogramDataPoint {
    "attributes" => attributes,
    "startTimeUnixNano" => start_time_unix_nano,
    "timeUnixNano" => time_unix_nano,
    "count" => count,
    "sum" => sum,
    "scale" => scale,
    "zeroCount" => zero_count,
    "positive" => positive,
    "negative" => negative,
    "flags" => flags,
    "exemplars" => exemplars,
    "min" => min,
    "max" => max,
    "zeroThreshold" => zero_threshold,
});

message!(Buckets {
    "offset" => offset,
    "bucketCounts" => bucket_counts,
});

message!(SummaryDataPoint {
    "attributes" => attributes,
    "startTimeUnixNano" => start_time_unix_nano,
    "timeUnixNano" => time_unix_nano,
    "count" => count,
    "sum" => sum,
    "quantileValues" => quantile_values,
    "flags" => flags,
});

message!(ValueAtQuantile {
    "quantile" => quantile,
    "value" => value,
});

message!(Exemplar {
    "filteredAttributes" => filtered_attributes,
    "timeUnixNano" => time_unix_nano,
    "asDouble" => value = exemplar::Value::AsDouble,
    "asInt" => value = exemplar::Value::AsInt,
    "spanId" => span_id as Hex,
    "traceId" => trace_id as Hex,
});

fn bytes_value(Base64(bytes): Base64) -> Value {
    Value::BytesValue(bytes)
}

macro_rules! names {
    ($($type:ty),*) => {$(
        impl Names for $type {
            fn number(name: &str) -> Option<i32> {
                Self::from_str_name(name).map(i32::from)
            }
        }
    )*};
}

names!(SpanKind, StatusCode, SeverityNumber, AggregationTemporality);
