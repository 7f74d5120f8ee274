//! Fields of the OTLP messages (`opentelemetry/proto/*/v1/*.proto`).

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
use serde::{Deserializer, de::MapAccess};

use super::values::{Base64, Enumeration, Fields, FromJson, Hex, Json, Names, is_key_of, read_object};

/// Implements [`FromJson`] for messages with the given fields. A `null` leaves a field at its default.
///
/// `field as Form` reads the field's value as a `Form` that wraps it. `with field: Type { Variant, ... }`
/// declares a `oneof`, whose keys are the names of the variants.
macro_rules! messages {
    (@unwrap $value:ident) => { $value };
    (@unwrap $value:ident $form:ty) => {{
        let wrapped: $form = $value;
        wrapped.0
    }};
    ($(
        $message:ty { $($field:ident $(as $form:ty)?),* }
        $(with $oneof:ident: $type:ty { $($variant:ident $(as $variant_form:ty)?),* })?;
    )*) => {$(
        impl Fields for $message {
            fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
                $(if is_key_of(key, stringify!($field)) {
                    if let Some(Json(value)) = map.next_value()? {
                        self.$field = messages!(@unwrap value $($form)?);
                    }
                    return Ok(true);
                })*
                $($(if is_key_of(key, stringify!($variant)) {
                    if let Some(Json(value)) = map.next_value()? {
                        self.$oneof = Some(<$type>::$variant(messages!(@unwrap value $($variant_form)?)));
                    }
                    return Ok(true);
                })*)?
                Ok(false)
            }
        }

        impl FromJson for $message {
            fn from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read_object(deserializer)
            }
        }
    )*};
}

messages! {
    AnyValue {} with value: Value {
        StringValue, BoolValue, IntValue, DoubleValue, ArrayValue, KvlistValue, BytesValue as Base64
    };
    ArrayValue { values };
    KeyValueList { values };
    KeyValue { key, value };
    InstrumentationScope { name, version, attributes, dropped_attributes_count };
    Resource { attributes, dropped_attributes_count, entity_refs };
    EntityRef { schema_url, r#type, id_keys, description_keys };

    ExportTraceServiceRequest { resource_spans };
    ResourceSpans { resource, scope_spans, schema_url };
    ScopeSpans { scope, spans, schema_url };
    Span {
        trace_id as Hex, span_id as Hex, trace_state, parent_span_id as Hex, flags, name,
        kind as Enumeration<SpanKind>, start_time_unix_nano, end_time_unix_nano,
        attributes, dropped_attributes_count, events, dropped_events_count, links, dropped_links_count, status
    };
    Event { time_unix_nano, name, attributes, dropped_attributes_count };
    Link { trace_id as Hex, span_id as Hex, trace_state, attributes, dropped_attributes_count, flags };
    Status { message, code as Enumeration<StatusCode> };

    ExportLogsServiceRequest { resource_logs };
    ResourceLogs { resource, scope_logs, schema_url };
    ScopeLogs { scope, log_records, schema_url };
    LogRecord {
        time_unix_nano, observed_time_unix_nano, severity_number as Enumeration<SeverityNumber>,
        severity_text, body, attributes, dropped_attributes_count, flags, trace_id as Hex, span_id as Hex,
        event_name
    };

    ExportMetricsServiceRequest { resource_metrics };
    ResourceMetrics { resource, scope_metrics, schema_url };
    ScopeMetrics { scope, metrics, schema_url };
    Metric { name, description, unit, metadata } with data: Data {
        Gauge, Sum, Histogram, ExponentialHistogram, Summary
    };
    Gauge { data_points };
    Sum { data_points, aggregation_temporality as Enumeration<AggregationTemporality>, is_monotonic };
    Histogram { data_points, aggregation_temporality as Enumeration<AggregationTemporality> };
    ExponentialHistogram { data_points, aggregation_temporality as Enumeration<AggregationTemporality> };
    Summary { data_points };
    NumberDataPoint { attributes, start_time_unix_nano, time_unix_nano, exemplars, flags }
        with value: number_data_point::Value { AsDouble, AsInt };
    HistogramDataPoint {
        attributes, start_time_unix_nano, time_unix_nano, count, sum, bucket_counts, explicit_bounds,
        exemplars, flags, min, max
    };
    ExponentialHistogramDataPoint {
        attributes, start_time_unix_nano, time_unix_nano, count, sum, scale, zero_count, positive, negative,
        flags, exemplars, min, max, zero_threshold
    };
    Buckets { offset, bucket_counts };
    SummaryDataPoint { attributes, start_time_unix_nano, time_unix_nano, count, sum, quantile_values, flags };
    ValueAtQuantile { quantile, value };
    Exemplar { filtered_attributes, time_unix_nano, span_id as Hex, trace_id as Hex }
        with value: exemplar::Value { AsDouble, AsInt };
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
