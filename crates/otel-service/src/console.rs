//! The `console` exporters, which print telemetry to standard output as JSON lines, for use without a
//! collector. Log records are not printed, because log events are always written to standard output.

use std::io;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use otlp_recorder::{Request, Signal};
use prost::Message;
use serde_json::{Map, Value, json};

use crate::output::STDOUT;

/// Adds the spans or metrics of `request` to the queue of standard output.
///
/// # Errors
///
/// Fails if the request cannot be decoded.
pub(crate) fn write(request: &Request) -> io::Result<()> {
    let message = request.protobuf().clone();
    match request.signal() {
        Signal::Traces => print(
            ExportTraceServiceRequest::decode(message)
                .map_err(io::Error::other)?
                .resource_spans
                .iter()
                .flat_map(|group| &group.scope_spans)
                .flat_map(|scope| &scope.spans)
                .map(span),
        ),
        Signal::Metrics => print(
            ExportMetricsServiceRequest::decode(message)
                .map_err(io::Error::other)?
                .resource_metrics
                .iter()
                .flat_map(|group| &group.scope_metrics)
                .flat_map(|scope| &scope.metrics)
                .map(metric),
        ),
        Signal::Logs => {}
    }
    Ok(())
}

fn print(lines: impl Iterator<Item = Value>) {
    for line in lines {
        STDOUT.write(format!("{line}\n"));
    }
}

fn span(span: &Span) -> Value {
    let nanoseconds = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    json!({
        "span": span.name,
        "kind": span.kind().as_str_name().trim_start_matches("SPAN_KIND_").to_ascii_lowercase(),
        "trace_id": hex(&span.trace_id),
        "span_id": hex(&span.span_id),
        "parent_span_id": (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        "duration_ms": nanoseconds as f64 / 1e6,
        "error": span
            .status
            .as_ref()
            .filter(|status| status.code() == StatusCode::Error)
            .map(|status| &status.message),
        "attributes": attributes(&span.attributes),
        "events": span
            .events
            .iter()
            .map(|event| json!({"name": event.name, "attributes": attributes(&event.attributes)}))
            .collect::<Vec<_>>(),
        "links": span
            .links
            .iter()
            .map(|link| json!({"trace_id": hex(&link.trace_id), "span_id": hex(&link.span_id)}))
            .collect::<Vec<_>>(),
    })
}

fn metric(metric: &Metric) -> Value {
    let points: Vec<Value> = match &metric.data {
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.iter().map(number).collect(),
        Some(metric::Data::Sum(sum)) => sum.data_points.iter().map(number).collect(),
        Some(metric::Data::Histogram(histogram)) => histogram
            .data_points
            .iter()
            .map(|point| distribution(point.count, point.sum, &point.attributes))
            .collect(),
        Some(metric::Data::ExponentialHistogram(histogram)) => histogram
            .data_points
            .iter()
            .map(|point| distribution(point.count, point.sum, &point.attributes))
            .collect(),
        Some(metric::Data::Summary(_)) | None => Vec::new(),
    };
    json!({"metric": metric.name, "unit": metric.unit, "points": points})
}

fn number(point: &NumberDataPoint) -> Value {
    let value = match point.value {
        Some(number_data_point::Value::AsInt(number)) => json!(number),
        Some(number_data_point::Value::AsDouble(number)) => json!(number),
        None => Value::Null,
    };
    json!({"value": value, "attributes": attributes(&point.attributes)})
}

fn distribution(count: u64, sum: Option<f64>, pairs: &[KeyValue]) -> Value {
    json!({"count": count, "sum": sum, "attributes": attributes(pairs)})
}

fn attributes(attributes: &[KeyValue]) -> Map<String, Value> {
    attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), value(attribute.value.as_ref())))
        .collect()
}

/// Returns an attribute value as JSON.
pub(crate) fn value(any: Option<&AnyValue>) -> Value {
    match any.and_then(|any| any.value.as_ref()) {
        Some(Attribute::StringValue(text)) => json!(text),
        Some(Attribute::BoolValue(truth)) => json!(truth),
        Some(Attribute::IntValue(number)) => json!(number),
        Some(Attribute::DoubleValue(number)) => json!(number),
        Some(Attribute::BytesValue(bytes)) => json!(hex(bytes)),
        Some(Attribute::ArrayValue(array)) => array.values.iter().map(|any| value(Some(any))).collect(),
        Some(Attribute::KvlistValue(list)) => Value::Object(attributes(&list.values)),
        _ => Value::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
