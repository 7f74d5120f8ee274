//! Tests that set every field of every message, to detect omitted fields and fields that a new version of
//! OTLP adds.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::*;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::json;

const LARGE: u64 = u64::MAX - 1;

fn any(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: any(value),
        key_strindex: 0,
    }
}

fn attributes() -> Vec<KeyValue> {
    let values = vec![
        AnyValue {
            value: Some(Any::IntValue(1)),
        },
        AnyValue { value: None },
    ];
    vec![
        attribute("text", Any::StringValue("ü\"\n".to_owned())),
        attribute("empty", Any::StringValue(String::new())),
        attribute("truth", Any::BoolValue(false)),
        attribute("int", Any::IntValue(i64::MIN)),
        attribute("double", Any::DoubleValue(-0.5)),
        attribute("array", Any::ArrayValue(ArrayValue { values })),
        attribute(
            "map",
            Any::KvlistValue(KeyValueList {
                values: vec![attribute("inner", Any::IntValue(0))],
            }),
        ),
        attribute("bytes", Any::BytesValue(vec![0, 255, 62])),
    ]
}

fn resource() -> Option<Resource> {
    Some(Resource {
        attributes: attributes(),
        dropped_attributes_count: 1,
        entity_refs: vec![EntityRef {
            schema_url: "schema".to_owned(),
            r#type: "service".to_owned(),
            id_keys: vec!["service.name".to_owned()],
            description_keys: vec!["service.version".to_owned()],
        }],
    })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "scope".to_owned(),
        version: "1".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 2,
    })
}

fn traces() -> ExportTraceServiceRequest {
    let span = Span {
        trace_id: vec![0xab; 16],
        span_id: vec![0x0c; 8],
        trace_state: "a=b".to_owned(),
        parent_span_id: vec![0xd0; 8],
        flags: u32::MAX,
        name: "GET /".to_owned(),
        kind: 2,
        start_time_unix_nano: LARGE,
        end_time_unix_nano: LARGE,
        attributes: attributes(),
        dropped_attributes_count: 3,
        events: vec![Event {
            time_unix_nano: LARGE,
            name: "exception".to_owned(),
            attributes: attributes(),
            dropped_attributes_count: 4,
        }],
        dropped_events_count: 5,
        links: vec![Link {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            trace_state: "c=d".to_owned(),
            attributes: attributes(),
            dropped_attributes_count: 6,
            flags: 1,
        }],
        dropped_links_count: 7,
        status: Some(Status {
            message: "no".to_owned(),
            code: 2,
        }),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(),
            scope_spans: vec![ScopeSpans {
                scope: scope(),
                spans: vec![span, Span::default()],
                schema_url: "scope".to_owned(),
            }],
            schema_url: "resource".to_owned(),
        }],
    }
}

fn logs() -> ExportLogsServiceRequest {
    let log = LogRecord {
        time_unix_nano: LARGE,
        observed_time_unix_nano: LARGE,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: any(Any::StringValue("hello".to_owned())),
        attributes: attributes(),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![3; 16],
        span_id: vec![4; 8],
        event_name: "event".to_owned(),
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(),
            scope_logs: vec![ScopeLogs {
                scope: scope(),
                log_records: vec![log, LogRecord::default()],
                schema_url: "scope".to_owned(),
            }],
            schema_url: "resource".to_owned(),
        }],
    }
}

fn exemplars() -> Vec<Exemplar> {
    [exemplar::Value::AsDouble(0.25), exemplar::Value::AsInt(-3)]
        .map(|value| Exemplar {
            filtered_attributes: attributes(),
            time_unix_nano: LARGE,
            span_id: vec![5; 8],
            trace_id: vec![6; 16],
            value: Some(value),
        })
        .to_vec()
}

fn number_points() -> Vec<NumberDataPoint> {
    [
        number_data_point::Value::AsDouble(1.5),
        number_data_point::Value::AsInt(i64::MAX),
        number_data_point::Value::AsInt(0),
    ]
    .map(|value| NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: LARGE,
        time_unix_nano: LARGE,
        exemplars: exemplars(),
        flags: 1,
        value: Some(value),
    })
    .to_vec()
}

fn histogram_points() -> Vec<HistogramDataPoint> {
    let point = HistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: LARGE,
        time_unix_nano: LARGE,
        count: LARGE,
        sum: Some(0.0),
        bucket_counts: vec![0, LARGE],
        explicit_bounds: vec![0.005],
        exemplars: exemplars(),
        flags: 1,
        min: Some(0.0),
        max: Some(2.5),
    };
    vec![point, HistogramDataPoint::default()]
}

fn exponential_point() -> ExponentialHistogramDataPoint {
    let buckets = |offset| {
        Some(Buckets {
            offset,
            bucket_counts: vec![LARGE, 0],
        })
    };
    ExponentialHistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: LARGE,
        time_unix_nano: LARGE,
        count: LARGE,
        sum: Some(1.0),
        scale: -3,
        zero_count: LARGE,
        positive: buckets(-7),
        negative: buckets(7),
        flags: 1,
        exemplars: exemplars(),
        min: Some(-1.0),
        max: Some(1.0),
        zero_threshold: 0.125,
    }
}

fn summary_point() -> SummaryDataPoint {
    SummaryDataPoint {
        attributes: attributes(),
        start_time_unix_nano: LARGE,
        time_unix_nano: LARGE,
        count: LARGE,
        sum: 1.25,
        quantile_values: vec![ValueAtQuantile {
            quantile: 0.5,
            value: 2.0,
        }],
        flags: 1,
    }
}

fn metrics() -> ExportMetricsServiceRequest {
    let metrics = [
        metric::Data::Gauge(Gauge {
            data_points: number_points(),
        }),
        metric::Data::Sum(Sum {
            data_points: number_points(),
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        metric::Data::Histogram(Histogram {
            data_points: histogram_points(),
            aggregation_temporality: 1,
        }),
        metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exponential_point()],
            aggregation_temporality: 2,
        }),
        metric::Data::Summary(Summary {
            data_points: vec![summary_point()],
        }),
    ]
    .map(|data| Metric {
        name: "name".to_owned(),
        description: "description".to_owned(),
        unit: "s".to_owned(),
        metadata: attributes(),
        data: Some(data),
    });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: metrics.to_vec(),
                schema_url: "scope".to_owned(),
            }],
            schema_url: "resource".to_owned(),
        }],
    }
}

fn text(request: &Request) -> String {
    String::from_utf8(json_body(request)).unwrap()
}

/// Reads the JSON with `opentelemetry-proto`, which shares no code with the writer.
#[test]
fn written_json_is_read_back_unchanged() {
    let written = text(&Request::new(Signal::Traces, traces().encode_to_vec().into()));
    assert_eq!(
        serde_json::from_str::<ExportTraceServiceRequest>(&written).unwrap(),
        traces()
    );
    let written = text(&Request::new(Signal::Logs, logs().encode_to_vec().into()));
    assert_eq!(
        serde_json::from_str::<ExportLogsServiceRequest>(&written).unwrap(),
        logs()
    );
    let written = text(&Request::new(Signal::Metrics, metrics().encode_to_vec().into()));
    assert_eq!(
        serde_json::from_str::<ExportMetricsServiceRequest>(&written).unwrap(),
        metrics()
    );
}

#[test]
fn the_mapping_follows_the_specification() {
    let value: Value = serde_json::from_slice(&json_body(&Request::new(
        Signal::Traces,
        traces().encode_to_vec().into(),
    )))
    .unwrap();
    let group = &value["resourceSpans"][0];
    assert_eq!(group["resource"]["droppedAttributesCount"], 1);
    let span = &group["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "ab".repeat(16));
    assert_eq!(span["parentSpanId"], "d0".repeat(8));
    assert_eq!(span["kind"], 2);
    assert_eq!(span["startTimeUnixNano"], LARGE.to_string());
    assert_eq!(span["status"], json!({"message": "no", "code": 2}));
    assert_eq!(
        span["attributes"][1],
        json!({"key": "empty", "value": {"stringValue": ""}})
    );
    assert_eq!(
        span["attributes"][3]["value"],
        json!({"intValue": i64::MIN.to_string()})
    );
    assert_eq!(span["attributes"][7]["value"], json!({"bytesValue": "AP8+"}));
    assert_eq!(group["scopeSpans"][0]["spans"][1], json!({}));

    let value: Value = serde_json::from_slice(&json_body(&Request::new(
        Signal::Metrics,
        metrics().encode_to_vec().into(),
    )))
    .unwrap();
    let metrics = &value["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    let histogram = &metrics[2]["histogram"];
    assert_eq!(histogram["aggregationTemporality"], 1);
    assert_eq!(
        histogram["dataPoints"][0]["bucketCounts"],
        json!(["0", LARGE.to_string()])
    );
    assert_eq!(histogram["dataPoints"][0]["sum"], 0.0);
    assert_eq!(histogram["dataPoints"][1], json!({}));
    assert_eq!(metrics[1]["sum"]["dataPoints"][2]["asInt"], "0");
    assert!(!value.to_string().contains("null"));
}

#[test]
fn infinities_and_nan_are_written_by_name() {
    for (number, expected) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(value(Kind::Double, number.to_bits(), &[]), expected);
    }
}
