//! Export requests with a value in every field, for tests.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};

use prost::Message as _;

use crate::export::Export;

/// Returns a request of each signal, in which every string ends with `text`.
pub(crate) fn exports(text: &str) -> [Export; 3] {
    [
        Export::Traces(traces(text)),
        Export::Logs(logs(text)),
        Export::Metrics(metrics(text)),
    ]
}

fn with(field: &str, text: &str) -> String {
    format!("{field} {text}")
}

fn attribute(text: &str, key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: with(key, text),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn attributes(text: &str) -> Vec<KeyValue> {
    vec![
        attribute(text, "text", Value::StringValue(with("t", text))),
        attribute(text, "int", Value::IntValue(-5)),
        attribute(text, "double", Value::DoubleValue(0.25)),
        attribute(text, "bool", Value::BoolValue(true)),
        attribute(text, "bytes", Value::BytesValue(vec![0, 255])),
        attribute(
            text,
            "list",
            Value::KvlistValue(KeyValueList {
                values: vec![attribute(
                    text,
                    "array",
                    Value::ArrayValue(ArrayValue {
                        values: vec![AnyValue {
                            value: Some(Value::IntValue(1)),
                        }],
                    }),
                )],
            }),
        ),
    ]
}

fn resource(text: &str) -> Option<Resource> {
    Some(Resource {
        attributes: attributes(text),
        dropped_attributes_count: 1,
        entity_refs: vec![EntityRef {
            schema_url: with("s", text),
            r#type: with("host", text),
            id_keys: vec![with("host.id", text)],
            description_keys: vec![with("host.name", text)],
        }],
    })
}

fn scope(text: &str) -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: with("scope", text),
        version: with("1", text),
        attributes: attributes(text),
        dropped_attributes_count: 2,
    })
}

pub(crate) fn traces(text: &str) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(text),
            scope_spans: vec![ScopeSpans {
                scope: scope(text),
                spans: vec![Span {
                    trace_id: (1..=16).collect(),
                    span_id: (1..=8).collect(),
                    trace_state: with("a=b", text),
                    parent_span_id: (2..=9).collect(),
                    flags: 0x101,
                    name: with("name", text),
                    kind: 5,
                    start_time_unix_nano: 1,
                    end_time_unix_nano: u64::MAX,
                    attributes: attributes(text),
                    dropped_attributes_count: 3,
                    events: vec![Event {
                        time_unix_nano: 4,
                        name: with("event", text),
                        attributes: attributes(text),
                        dropped_attributes_count: 5,
                    }],
                    dropped_events_count: 6,
                    links: vec![Link {
                        trace_id: (3..=18).collect(),
                        span_id: (3..=10).collect(),
                        trace_state: with("c=d", text),
                        attributes: attributes(text),
                        dropped_attributes_count: 7,
                        flags: 0x200,
                    }],
                    dropped_links_count: 8,
                    status: Some(Status {
                        message: with("message", text),
                        code: 1,
                    }),
                }],
                schema_url: with("scope schema", text),
            }],
            schema_url: with("resource schema", text),
        }],
    }
}

pub(crate) fn logs(text: &str) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(text),
            scope_logs: vec![ScopeLogs {
                scope: scope(text),
                log_records: vec![LogRecord {
                    time_unix_nano: 1,
                    observed_time_unix_nano: 2,
                    severity_number: 17,
                    severity_text: with("ERROR", text),
                    body: Some(AnyValue {
                        value: Some(Value::StringValue(with("body", text))),
                    }),
                    attributes: attributes(text),
                    dropped_attributes_count: 3,
                    flags: 1,
                    trace_id: (1..=16).collect(),
                    span_id: (1..=8).collect(),
                    event_name: with("event", text),
                }],
                schema_url: with("scope schema", text),
            }],
            schema_url: with("resource schema", text),
        }],
    }
}

pub(crate) fn metrics(text: &str) -> ExportMetricsServiceRequest {
    let exemplars = vec![
        Exemplar {
            filtered_attributes: attributes(text),
            time_unix_nano: 3,
            span_id: (1..=8).collect(),
            trace_id: (1..=16).collect(),
            value: Some(exemplar::Value::AsDouble(0.5)),
        },
        Exemplar {
            value: Some(exemplar::Value::AsInt(i64::MIN)),
            ..Exemplar::default()
        },
    ];
    let number = |value| NumberDataPoint {
        attributes: attributes(text),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        exemplars: exemplars.clone(),
        flags: 1,
        value: Some(value),
    };
    let data = [
        Data::Gauge(Gauge {
            data_points: vec![number(number_data_point::Value::AsDouble(-0.5))],
        }),
        Data::Sum(Sum {
            data_points: vec![number(number_data_point::Value::AsInt(9))],
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                attributes: attributes(text),
                start_time_unix_nano: 1,
                time_unix_nano: 2,
                count: 3,
                sum: Some(4.5),
                bucket_counts: vec![1, 2, u64::MAX],
                explicit_bounds: vec![0.5, 10.0],
                exemplars: exemplars.clone(),
                flags: 1,
                min: Some(0.0),
                max: Some(5.0),
            }],
            aggregation_temporality: 1,
        }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint {
                attributes: attributes(text),
                start_time_unix_nano: 1,
                time_unix_nano: 2,
                count: 3,
                sum: Some(-1.0),
                scale: -3,
                zero_count: 4,
                positive: Some(Buckets {
                    offset: -2,
                    bucket_counts: vec![5, 6],
                }),
                negative: Some(Buckets::default()),
                flags: 1,
                exemplars: exemplars.clone(),
                min: Some(-2.0),
                max: Some(2.0),
                zero_threshold: 0.125,
            }],
            aggregation_temporality: 2,
        }),
        Data::Summary(Summary {
            data_points: vec![SummaryDataPoint {
                attributes: attributes(text),
                start_time_unix_nano: 1,
                time_unix_nano: 2,
                count: 3,
                sum: 4.0,
                quantile_values: vec![ValueAtQuantile {
                    quantile: 0.5,
                    value: f64::INFINITY,
                }],
                flags: 1,
            }],
        }),
    ];
    let metric = |data| Metric {
        name: with("name", text),
        description: with("description", text),
        unit: with("s", text),
        metadata: attributes(text),
        data: Some(data),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(text),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(text),
                metrics: data.map(metric).to_vec(),
                schema_url: with("scope schema", text),
            }],
            schema_url: with("resource schema", text),
        }],
    }
}

impl Export {
    /// Encodes the request as protobuf.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Traces(request) => request.encode_to_vec(),
            Self::Metrics(request) => request.encode_to_vec(),
            Self::Logs(request) => request.encode_to_vec(),
        }
    }
}
