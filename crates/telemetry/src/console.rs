//! The `console` exporters of traces and metrics: one JSON object a line on standard output, for looking at telemetry
//! without a collector. Logs are on standard output anyway.

use std::io::Write;
use std::time::Duration;

use opentelemetry::trace::{SpanId, Status};
use opentelemetry::{KeyValue, Value as Attribute};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use serde_json::{Map, Value, json};

/// Writes spans.
#[derive(Debug)]
pub(crate) struct ConsoleSpans;

impl SpanExporter for ConsoleSpans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        write(batch.iter().map(span))
    }
}

/// Writes metrics, cumulative ones.
#[derive(Debug)]
pub(crate) struct ConsoleMetrics;

impl PushMetricExporter for ConsoleMetrics {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        write(
            metrics
                .scope_metrics()
                .flat_map(|scope| scope.metrics())
                .map(metric),
        )
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn write(lines: impl Iterator<Item = Value>) -> OTelSdkResult {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}").map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?;
    }
    Ok(())
}

fn span(span: &SpanData) -> Value {
    let parent = span.parent_span_id;
    json!({
        "span": span.name,
        "kind": format!("{:?}", span.span_kind).to_lowercase(),
        "trace_id": span.span_context.trace_id().to_string(),
        "span_id": span.span_context.span_id().to_string(),
        "parent_span_id": (parent != SpanId::INVALID).then(|| parent.to_string()),
        "duration_ms": span
            .end_time
            .duration_since(span.start_time)
            .map_or(0.0, |duration| duration.as_secs_f64() * 1000.0),
        "error": match &span.status {
            Status::Error { description } => Some(description),
            Status::Unset | Status::Ok => None,
        },
        "attributes": attributes(span.attributes.iter()),
        "events": span
            .events
            .iter()
            .map(|event| json!({"name": event.name, "attributes": attributes(event.attributes.iter())}))
            .collect::<Vec<_>>(),
    })
}

fn metric(metric: &Metric) -> Value {
    let points = match metric.data() {
        AggregatedMetrics::F64(data) => points(data),
        AggregatedMetrics::U64(data) => points(data),
        AggregatedMetrics::I64(data) => points(data),
    };
    json!({"metric": metric.name(), "unit": metric.unit(), "points": points})
}

fn points<T: Copy + Into<Value>>(data: &MetricData<T>) -> Vec<Value> {
    match data {
        MetricData::Gauge(gauge) => gauge
            .data_points()
            .map(|point| json!({"value": point.value().into(), "attributes": attributes(point.attributes())}))
            .collect(),
        MetricData::Sum(sum) => sum
            .data_points()
            .map(|point| json!({"value": point.value().into(), "attributes": attributes(point.attributes())}))
            .collect(),
        MetricData::Histogram(histogram) => histogram
            .data_points()
            .map(|point| {
                json!({
                    "count": point.count(),
                    "sum": point.sum().into(),
                    "attributes": attributes(point.attributes()),
                })
            })
            .collect(),
        MetricData::ExponentialHistogram(histogram) => histogram
            .data_points()
            .map(|point| {
                json!({
                    "count": point.count(),
                    "sum": point.sum().into(),
                    "attributes": attributes(point.attributes()),
                })
            })
            .collect(),
    }
}

fn attributes<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> Map<String, Value> {
    attributes
        .map(|attribute| {
            let value = match &attribute.value {
                Attribute::Bool(truth) => json!(truth),
                Attribute::I64(number) => json!(number),
                Attribute::F64(number) => json!(number),
                other => json!(other.as_str()),
            };
            (attribute.key.to_string(), value)
        })
        .collect()
}
