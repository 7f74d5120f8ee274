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

use super::*;

fn traces(body: &str) -> ExportTraceServiceRequest {
    match decode(Signal::Traces, body.as_bytes()).unwrap() {
        Export::Traces(request) => request,
        other => panic!("{other:?}"),
    }
}

fn span(fields: &str) -> Span {
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
    traces(&body)
        .resource_spans
        .remove(0)
        .scope_spans
        .remove(0)
        .spans
        .remove(0)
}

/// The value of an attribute, as the decoder sees it.
fn value(json: &str) -> Option<Value> {
    let mut span = span(&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#));
    span.attributes.remove(0).value.unwrap().value
}

fn error(signal: Signal, body: &str) -> String {
    decode(signal, body.as_bytes()).unwrap_err().to_string()
}

fn points(fields: &str) -> NumberDataPoint {
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"gauge":{{"dataPoints":[{{{fields}}}]}}}}]}}]}}]}}"#
    );
    let Ok(Export::Metrics(mut request)) = decode(Signal::Metrics, body.as_bytes()) else {
        panic!("{body} is not understood");
    };
    let metric = request
        .resource_metrics
        .remove(0)
        .scope_metrics
        .remove(0)
        .metrics
        .remove(0);
    match metric.data {
        Some(Data::Gauge(mut gauge)) => gauge.data_points.remove(0),
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::StringValue(text.to_owned())),
    })
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[test]
fn a_body_of_the_javascript_sdk_is_understood() {
    let request = traces(
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],
        "droppedAttributesCount":0},"scopeSpans":[{"scope":{"name":"@opentelemetry/instrumentation-http","version":"0.200.0"},
        "spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"EEE19B7EC3C1B173",
        "name":"GET /cart","kind":2,"startTimeUnixNano":"1795342907000000001","endTimeUnixNano":"1795342907000005001",
        "attributes":[{"key":"http.response.status_code","value":{"intValue":200}},
        {"key":"tags","value":{"arrayValue":{"values":[{"stringValue":"a"},{"boolValue":true},{"doubleValue":1}]}}}],
        "droppedAttributesCount":0,"events":[{"attributes":[],"name":"e","timeUnixNano":"1795342907000000002",
        "droppedAttributesCount":0}],"droppedEventsCount":0,"status":{"code":2,"message":"no"},
        "links":[{"attributes":[],"spanId":"00f067aa0ba902b7","traceId":"4bf92f3577b34da6a3ce929d0e0e4736",
        "droppedAttributesCount":0}],"droppedLinksCount":0,"flags":257}]}]}]}"#,
    );
    let expected = Span {
        trace_id: vec![
            0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c,
        ],
        span_id: vec![0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74],
        parent_span_id: vec![0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x73],
        name: "GET /cart".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_795_342_907_000_000_001,
        end_time_unix_nano: 1_795_342_907_000_005_001,
        attributes: vec![
            attribute("http.response.status_code", Value::IntValue(200)),
            attribute(
                "tags",
                Value::ArrayValue(ArrayValue {
                    values: [
                        Value::StringValue("a".to_owned()),
                        Value::BoolValue(true),
                        Value::DoubleValue(1.0),
                    ]
                    .map(|value| AnyValue { value: Some(value) })
                    .to_vec(),
                }),
            ),
        ],
        events: vec![Event {
            name: "e".to_owned(),
            time_unix_nano: 1_795_342_907_000_000_002,
            ..Event::default()
        }],
        status: Some(Status {
            code: 2,
            message: "no".to_owned(),
        }),
        links: vec![Link {
            trace_id: vec![
                0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47,
                0x36,
            ],
            span_id: vec![0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7],
            ..Link::default()
        }],
        flags: 257,
        ..Span::default()
    };
    let resource = &request.resource_spans[0];
    assert_eq!(
        resource.resource.as_ref().unwrap().attributes[0].value,
        text("shop")
    );
    let scope = &resource.scope_spans[0];
    assert_eq!(scope.scope.as_ref().unwrap().version, "0.200.0");
    assert_eq!(scope.spans, [expected]);
}

#[test]
fn every_field_comes_back_as_it_was_written() {
    assert_eq!(
        decode(Signal::Traces, &serde_json::to_vec(&full_traces()).unwrap()).unwrap(),
        Export::Traces(full_traces())
    );
    assert_eq!(
        decode(Signal::Logs, &serde_json::to_vec(&full_logs()).unwrap()).unwrap(),
        Export::Logs(full_logs())
    );
    assert_eq!(
        decode(Signal::Metrics, &serde_json::to_vec(&full_metrics()).unwrap()).unwrap(),
        Export::Metrics(full_metrics())
    );
}

#[test]
fn values_are_read_in_each_of_their_forms() {
    for (json, expected) in [
        (
            r#"{"stringValue":"a\u0000\ud83d\ude00"}"#,
            Value::StringValue("a\0😀".to_owned()),
        ),
        (r#"{"stringValue":""}"#, Value::StringValue(String::new())),
        (r#"{"boolValue":false}"#, Value::BoolValue(false)),
        (
            r#"{"intValue":"-9223372036854775808"}"#,
            Value::IntValue(i64::MIN),
        ),
        (r#"{"intValue":9223372036854775807}"#, Value::IntValue(i64::MAX)),
        (r#"{"intValue":1e3}"#, Value::IntValue(1000)),
        (r#"{"doubleValue":1}"#, Value::DoubleValue(1.0)),
        (r#"{"doubleValue":"1.5"}"#, Value::DoubleValue(1.5)),
        (
            r#"{"doubleValue":"-Infinity"}"#,
            Value::DoubleValue(f64::NEG_INFINITY),
        ),
        (r#"{"bytesValue":"+/8="}"#, Value::BytesValue(vec![0xfb, 0xff])),
        (r#"{"bytesValue":"-_8"}"#, Value::BytesValue(vec![0xfb, 0xff])),
        (r#"{"arrayValue":{}}"#, Value::ArrayValue(ArrayValue::default())),
        (
            r#"{"kvlistValue":{"values":null}}"#,
            Value::KvlistValue(KeyValueList::default()),
        ),
    ] {
        assert_eq!(value(json), Some(expected), "{json}");
    }
    let Some(Value::DoubleValue(nan)) = value(r#"{"doubleValue":"NaN"}"#) else {
        panic!("NaN is a number here");
    };
    assert!(nan.is_nan());
}

#[test]
fn an_unknown_key_inside_a_value_takes_its_own_value_with_it() {
    let known = Some(Value::StringValue("known".to_owned()));
    assert_eq!(
        value(r#"{"future":{"stringValue":"x"},"stringValue":"known"}"#),
        known
    );
    assert_eq!(value(r#"{"stringValue":"known","future":["intValue",1]}"#), known);
    assert_eq!(value(r#"{"future":"stringValue"}"#), None);
    assert_eq!(value("{}"), None);
}

#[test]
fn null_is_as_if_the_key_were_not_there() {
    let span = span(
        r#""name":null,"kind":null,"attributes":null,"status":null,"traceState":null,"startTimeUnixNano":null,
        "parentSpanId":null,"events":null"#,
    );
    assert_eq!(span, Span::default());
    assert_eq!(
        value(r#"{"stringValue":null,"intValue":1}"#),
        Some(Value::IntValue(1))
    );
    let point = points(r#""asInt":null,"asDouble":2.5"#);
    assert_eq!(point.value, Some(number_data_point::Value::AsDouble(2.5)));
}

#[test]
fn what_is_missing_has_its_default() {
    assert_eq!(traces("{}"), ExportTraceServiceRequest::default());
    assert_eq!(
        traces(r#"{"resourceSpans":[{}]}"#).resource_spans,
        [ResourceSpans::default()]
    );
    let span = span(r#""attributes":[{},{"key":"only"},{"value":{"stringValue":"only"}}]"#);
    assert_eq!(span.attributes[0], KeyValue::default());
    assert_eq!(span.attributes[1].key, "only");
    assert_eq!(span.attributes[2].value, text("only"));
}

#[test]
fn keys_that_are_unknown_are_ignored_wherever_they_are() {
    let body = r#"{"x":1,"resourceSpans":[{"y":[{"z":null}],"scopeSpans":[{"spans":[{"name":"n","profile":{"deep":[1,{}]}}]}]}]}"#;
    assert_eq!(traces(body).resource_spans[0].scope_spans[0].spans[0].name, "n");
    // Protobuf's own names are no keys in OTLP.
    assert!(traces(r#"{"resource_spans":[{}]}"#).resource_spans.is_empty());
}

#[test]
fn numbers_are_read_in_each_of_their_forms() {
    let span = span(
        r#""startTimeUnixNano":18446744073709551615,"endTimeUnixNano":"18446744073709551615","flags":"257",
        "droppedEventsCount":3,"kind":"SPAN_KIND_CLIENT","status":{"code":"STATUS_CODE_ERROR"}"#,
    );
    assert_eq!(span.start_time_unix_nano, u64::MAX);
    assert_eq!(span.end_time_unix_nano, u64::MAX);
    assert_eq!((span.flags, span.dropped_events_count, span.kind), (257, 3, 3));
    assert_eq!(span.status.unwrap().code, 2);

    assert_eq!(
        points(r#""asInt":"-7""#).value,
        Some(number_data_point::Value::AsInt(-7))
    );
    assert_eq!(
        points(r#""asDouble":"Infinity""#).value,
        Some(number_data_point::Value::AsDouble(f64::INFINITY))
    );
}

/// A number of an enumeration that is not known yet is passed on.
#[test]
fn an_unknown_number_of_an_enumeration_is_kept() {
    assert_eq!(span(r#""kind":77"#).kind, 77);
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_a_loss() {
    for (signal, body) in [
        (Signal::Traces, ""),
        (Signal::Traces, "null"),
        (Signal::Traces, "[]"),
        (Signal::Traces, "{} {}"),
        (Signal::Traces, r#"{"resourceSpans":{}}"#),
        (Signal::Traces, r#"{"resourceSpans":[null]}"#),
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}"#,
        ),
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"abc"}]}]}]}"#,
        ),
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":5}]}]}]}"#,
        ),
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"flags":4294967296}]}]}]}"#,
        ),
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SERVER"}]}]}]}"#,
        ),
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":-1}]}]}]}"#,
        ),
        (
            Signal::Traces,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":1.5}]}]}]}"#,
        ),
        (
            Signal::Logs,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":"text"}]}]}]}"#,
        ),
        (
            Signal::Logs,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"bytesValue":"%"}}]}]}]}"#,
        ),
        (
            Signal::Logs,
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"intValue":"x"}}]}]}]}"#,
        ),
        (
            Signal::Metrics,
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[{"asDouble":"inf"}]}}]}]}]}"#,
        ),
        (
            Signal::Metrics,
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"count":"x"}]}}]}]}]}"#,
        ),
    ] {
        assert!(!error(signal, body).is_empty(), "{body}");
    }
}

#[test]
fn an_error_does_not_repeat_the_value() {
    let message = error(
        Signal::Logs,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"secret"}]}]}]}"#,
    );
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(depth);
        let close = "]}}".repeat(depth);
        format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{open}{{"stringValue":"x"}}{close}}}]}}]}}]}}"#
        )
    };
    assert!(decode(Signal::Logs, nested(30).as_bytes()).is_ok());
    assert!(error(Signal::Logs, &nested(60)).contains("recursion"));
    assert!(error(Signal::Logs, &nested(1_000_000)).contains("recursion"));
    // What is ignored is skipped without recursion.
    let ignored = format!(
        r#"{{"unknown":{}{}}}"#,
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    assert!(decode(Signal::Logs, ignored.as_bytes()).is_ok());
}

fn attributes() -> Vec<KeyValue> {
    vec![
        attribute("text", Value::StringValue("t".to_owned())),
        attribute("int", Value::IntValue(-5)),
        attribute("double", Value::DoubleValue(0.25)),
        attribute("bool", Value::BoolValue(true)),
        attribute("bytes", Value::BytesValue(vec![0, 255])),
        attribute(
            "list",
            Value::KvlistValue(KeyValueList {
                values: vec![attribute(
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

fn resource() -> Option<Resource> {
    Some(Resource {
        attributes: attributes(),
        dropped_attributes_count: 1,
        entity_refs: vec![EntityRef {
            schema_url: "s".to_owned(),
            r#type: "host".to_owned(),
            id_keys: vec!["host.id".to_owned()],
            description_keys: vec!["host.name".to_owned()],
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

fn full_traces() -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(),
            scope_spans: vec![ScopeSpans {
                scope: scope(),
                spans: vec![Span {
                    trace_id: (1..=16).collect(),
                    span_id: (1..=8).collect(),
                    trace_state: "a=b".to_owned(),
                    parent_span_id: (2..=9).collect(),
                    flags: 0x101,
                    name: "name".to_owned(),
                    kind: 5,
                    start_time_unix_nano: 1,
                    end_time_unix_nano: u64::MAX,
                    attributes: attributes(),
                    dropped_attributes_count: 3,
                    events: vec![Event {
                        time_unix_nano: 4,
                        name: "event".to_owned(),
                        attributes: attributes(),
                        dropped_attributes_count: 5,
                    }],
                    dropped_events_count: 6,
                    links: vec![Link {
                        trace_id: (3..=18).collect(),
                        span_id: (3..=10).collect(),
                        trace_state: "c=d".to_owned(),
                        attributes: attributes(),
                        dropped_attributes_count: 7,
                        flags: 0x200,
                    }],
                    dropped_links_count: 8,
                    status: Some(Status {
                        message: "message".to_owned(),
                        code: 1,
                    }),
                }],
                schema_url: "scope schema".to_owned(),
            }],
            schema_url: "resource schema".to_owned(),
        }],
    }
}

fn full_logs() -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(),
            scope_logs: vec![ScopeLogs {
                scope: scope(),
                log_records: vec![LogRecord {
                    time_unix_nano: 1,
                    observed_time_unix_nano: 2,
                    severity_number: 17,
                    severity_text: "ERROR".to_owned(),
                    body: text("body"),
                    attributes: attributes(),
                    dropped_attributes_count: 3,
                    flags: 1,
                    trace_id: (1..=16).collect(),
                    span_id: (1..=8).collect(),
                    event_name: "event".to_owned(),
                }],
                schema_url: "scope schema".to_owned(),
            }],
            schema_url: "resource schema".to_owned(),
        }],
    }
}

fn full_metrics() -> ExportMetricsServiceRequest {
    let exemplars = vec![
        Exemplar {
            filtered_attributes: attributes(),
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
        attributes: attributes(),
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
                attributes: attributes(),
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
                attributes: attributes(),
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
                attributes: attributes(),
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
        name: "name".to_owned(),
        description: "description".to_owned(),
        unit: "s".to_owned(),
        metadata: attributes(),
        data: Some(data),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: data.map(metric).to_vec(),
                schema_url: "scope schema".to_owned(),
            }],
            schema_url: "resource schema".to_owned(),
        }],
    }
}
