use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value},
    metrics::v1::{NumberDataPoint, metric::Data, number_data_point},
    trace::v1::{
        ResourceSpans, Span, Status,
        span::{Event, Link},
    },
};

use super::*;
use crate::samples;

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

/// Decodes an attribute value.
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
        panic!("cannot decode {body}");
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
fn a_body_from_the_javascript_sdk_is_decoded() {
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
fn every_field_round_trips() {
    for export in samples::exports("") {
        let body = match &export {
            Export::Traces(request) => serde_json::to_vec(request),
            Export::Logs(request) => serde_json::to_vec(request),
            Export::Metrics(request) => serde_json::to_vec(request),
        };
        assert_eq!(decode(export.signal(), &body.unwrap()).unwrap(), export);
    }
}

#[test]
fn values_are_read_in_every_form() {
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
        panic!("NaN was not read as a double");
    };
    assert!(nan.is_nan());
}

#[test]
fn an_unknown_key_in_a_value_is_skipped_with_its_value() {
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
fn null_is_equal_to_an_absent_key() {
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
fn absent_fields_have_default_values() {
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
fn unknown_keys_are_ignored_everywhere() {
    let body = r#"{"x":1,"resourceSpans":[{"y":[{"z":null}],"scopeSpans":[{"spans":[{"name":"n","profile":{"deep":[1,{}]}}]}]}]}"#;
    assert_eq!(traces(body).resource_spans[0].scope_spans[0].spans[0].name, "n");
    // OTLP/JSON allows only lower camel case keys.
    assert!(traces(r#"{"resource_spans":[{}]}"#).resource_spans.is_empty());
}

#[test]
fn numbers_are_read_in_every_form() {
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

/// Later versions of the protocol may add values.
#[test]
fn unknown_enumeration_numbers_are_kept() {
    assert_eq!(span(r#""kind":77"#).kind, 77);
}

#[test]
fn invalid_values_are_rejected_instead_of_dropped() {
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
fn errors_do_not_contain_the_value() {
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
    // Ignored values are skipped without recursion.
    let ignored = format!(
        r#"{{"unknown":{}{}}}"#,
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    assert!(decode(Signal::Logs, ignored.as_bytes()).is_ok());
}

#[test]
fn several_documents_are_one_request_whatever_editors_and_shells_add() {
    let line = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "é"}, {"name": "b"}]}]}]}"#;
    let spans = |body: &[u8]| decode(Signal::Traces, body).map(|export| export.items());
    for (text, items) in [
        (line.to_owned(), 2),
        (format!("\u{feff}{line}"), 2),
        (format!("{line}\r\n{line}\r\n"), 4),
        (format!("{line}\n\n{line}\n{line}"), 6),
        (format!("\u{feff}{line}\r\n\u{feff}{line}\u{1a}"), 4),
        (format!("\u{1e}{line}\n\u{1e}{line}\n\0"), 4),
        (format!("{line}\u{feff}{line}"), 4),
        (format!("{line}\n{{\"resourceLogs\": []}}\n"), 2),
    ] {
        assert_eq!(spans(text.as_bytes()).expect("valid"), items, "{text:?}");
        let utf16: Vec<u16> = format!("\u{feff}{}", text.trim_start_matches('\u{feff}'))
            .encode_utf16()
            .collect();
        let little: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        assert_eq!(spans(&little).expect("valid"), items, "{text:?}");
        assert_eq!(spans(&big).expect("valid"), items, "{text:?}");
    }
    for text in ["", "\n", "\u{feff}", "{} x", "{}{}", "{}\n{", "{}\n,{}", "[{}]"] {
        assert!(spans(text.as_bytes()).is_err(), "{text:?}");
    }
}
