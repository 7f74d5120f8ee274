//! The check reports every deviation from the registry, and nothing else.
#![cfg(test)]

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span,
    span::{Event, SpanKind},
};
use telemetry_registry::{Finding, Layout, Registry};

fn registry() -> Registry {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../config/telemetry-registry.yaml"
    );
    Registry::load(&Layout::read(std::path::Path::new(path)).unwrap()).unwrap()
}

fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, Value::StringValue(value.to_owned()))
}

fn int(name: &str, value: i64) -> KeyValue {
    attribute(name, Value::IntValue(value))
}

fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn resource() -> Resource {
    let names = [
        "service.name",
        "service.version",
        "service.instance.id",
        "telemetry.sdk.name",
        "telemetry.sdk.language",
        "telemetry.sdk.version",
        "telemetry.distro.name",
        "telemetry.distro.version",
        "process.creation.time",
        "process.runtime.name",
        "os.type",
        "host.arch",
    ];
    let mut attributes: Vec<_> = names.iter().map(|name| text(name, "x")).collect();
    attributes.push(int("process.pid", 1));
    Resource {
        attributes,
        ..Resource::default()
    }
}

fn shown(findings: impl IntoIterator<Item = Finding>) -> Vec<String> {
    findings.into_iter().map(|finding| finding.to_string()).collect()
}

fn of_span(span: Span) -> Vec<String> {
    shown(registry().check_traces(&ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }))
}

fn span(name: &str, kind: SpanKind, attributes: Vec<KeyValue>) -> Span {
    Span {
        name: name.to_owned(),
        kind: kind.into(),
        attributes,
        ..Span::default()
    }
}

fn of_metric(name: &str, unit: &str, data: Data) -> Vec<String> {
    shown(registry().check_metrics(&ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource()),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric {
                    name: name.to_owned(),
                    unit: unit.to_owned(),
                    data: Some(data),
                    ..Metric::default()
                }],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }))
}

fn sum(is_monotonic: bool, attributes: Vec<KeyValue>) -> Data {
    Data::Sum(Sum {
        is_monotonic,
        data_points: vec![NumberDataPoint {
            attributes,
            ..NumberDataPoint::default()
        }],
        ..Sum::default()
    })
}

fn of_log(attributes: Vec<KeyValue>) -> Vec<String> {
    shown(registry().check_logs(&ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource()),
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord {
                    attributes,
                    ..LogRecord::default()
                }],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }))
}

const NONE: [&str; 0] = [];

#[test]
fn a_span_as_declared_has_no_findings() {
    let login = vec![text("auth.status", "failed"), text("user.id", "7")];
    assert_eq!(of_span(span("user.login", SpanKind::Internal, login)), NONE);
}

#[test]
fn a_span_name_contains_the_values_of_its_attributes() {
    let request = |name: &str| {
        let attributes = vec![
            text("http.request.method", "GET"),
            text("http.route", "/api/articles/{slug}"),
            text("url.path", "/api/articles/a-b"),
            text("url.scheme", "http"),
            text("network.protocol.version", "1.1"),
            int("http.response.status_code", 200),
        ];
        of_span(span(name, SpanKind::Server, attributes))
    };
    assert_eq!(request("GET /api/articles/{slug}"), NONE);
    assert_eq!(request("GET"), NONE);
    assert_eq!(
        request("GET /api/articles/a-b"),
        ["span GET /api/articles/a-b: is not declared"]
    );
}

#[test]
fn deviations_of_a_span_are_found() {
    let attributes = vec![
        text("auth.status", "maybe"),
        text("auth.statuss", "failed"),
        int("user.id", 7),
        text("http.status_code", "200"),
        text("url.path", "/"),
        text("url.path", "/"),
    ];
    let mut wrong = span("user.login", SpanKind::Server, attributes);
    wrong.events.push(Event {
        name: "surprise".to_owned(),
        attributes: vec![text("exception.kind", "x")],
        ..Event::default()
    });
    assert_eq!(
        of_span(wrong),
        [
            "event surprise of span user.login: is not declared",
            "event surprise of span user.login: the attribute exception.kind is not declared",
            "span user.login: the attribute http.status_code is not declared for this item",
            "span user.login: the attribute url.path is not declared for this item",
            "span user.login: the attribute auth.status has no member \"maybe\"",
            "span user.login: the attribute auth.statuss is not declared",
            "span user.login: the attribute http.status_code is declared as int but is string",
            "span user.login: the attribute http.status_code is deprecated",
            "span user.login: the attribute url.path appears more than once",
            "span user.login: the attribute user.id is declared as string but is int",
            "span user.login: the kind is declared as internal but is server",
        ]
    );
    assert_eq!(
        of_span(span("user.logout", SpanKind::Internal, Vec::new())),
        ["span user.logout: the required attribute user.id is missing"]
    );
}

#[test]
fn dropped_attributes_are_not_reported_as_missing() {
    let mut limited = span("user.logout", SpanKind::Internal, Vec::new());
    limited.dropped_attributes_count = 1;
    assert_eq!(of_span(limited), NONE);
}

#[test]
fn a_metric_as_declared_has_no_findings() {
    let plain = |status| vec![text("method", "GET"), text("route", "/"), status];
    let of_requests = |status| of_metric("http_requests_total", "{request}", sum(true, plain(status)));
    assert_eq!(of_requests(int("status", 200)), NONE);
    assert_eq!(
        of_requests(text("status", "200")),
        ["metric http_requests_total: the attribute status is declared as int but is string"]
    );
    let overflow = attribute("otel.metric.overflow", Value::BoolValue(true));
    assert_eq!(of_requests_overflow(overflow), NONE);
}

fn of_requests_overflow(overflow: KeyValue) -> Vec<String> {
    of_metric("http_requests_total", "{request}", sum(true, vec![overflow]))
}

#[test]
fn deviations_of_a_metric_are_found() {
    let active = |unit: &str, data: Data| of_metric("http.server.active_requests", unit, data);
    let attributes = || vec![text("http.request.method", "GET"), text("url.scheme", "http")];
    assert_eq!(active("{request}", sum(false, attributes())), NONE);
    assert_eq!(
        active("1", sum(true, attributes())),
        [
            "metric http.server.active_requests: the instrument is declared as updowncounter but is counter",
            "metric http.server.active_requests: the unit is declared as \"{request}\" but is \"1\"",
        ]
    );
    let gauge = Data::Gauge(Gauge {
        data_points: vec![NumberDataPoint::default()],
    });
    assert_eq!(
        active("{request}", gauge),
        [
            "metric http.server.active_requests: the required attribute http.request.method is missing",
            "metric http.server.active_requests: the required attribute url.scheme is missing",
            "metric http.server.active_requests: the instrument is declared as updowncounter but is gauge",
        ]
    );
    let mut more = attributes();
    more.push(text("url.path", "/unbounded"));
    assert_eq!(
        active("{request}", sum(false, more)),
        ["metric http.server.active_requests: the attribute url.path is not declared for this item"]
    );
    assert_eq!(
        of_metric("requests", "1", sum(true, vec![text("who", "me")])),
        [
            "metric requests: is not declared",
            "metric requests: the attribute who is not declared",
            "metric requests: the name who has no namespace",
        ]
    );
    assert_eq!(
        of_metric("http.server.request.body.size", "By", sum(true, Vec::new()))[0],
        "metric http.server.request.body.size: is defined upstream but not imported"
    );
}

#[test]
fn log_fields_of_the_projects_own_crates_must_be_declared() {
    let record = |source: &str, field: KeyValue| {
        of_log(vec![
            text("code.file.path", source),
            int("code.line.number", 7),
            field,
        ])
    };
    let ours = "crates/pressroom/src/main.rs";
    assert_eq!(record(ours, int("retry.attempts", 3)), NONE);
    assert_eq!(
        record(ours, text("retry.attempts", "3")),
        [format!(
            "log of {ours}: the attribute retry.attempts is declared as int but is string"
        )]
    );
    assert_eq!(
        record(ours, int("retry.tries", 3)),
        [format!(
            "log of {ours}: the attribute retry.tries is not declared"
        )]
    );
    assert_eq!(record("hyper-1.0.0/src/lib.rs", int("tries", 3)), NONE);
}

#[test]
fn violations_of_the_conventions_are_found_in_every_crate() {
    let record = |source: &str, mut fields: Vec<KeyValue>| {
        fields.push(text("code.file.path", source));
        fields.push(int("code.line.number", 7));
        let found = of_log(fields);
        let start = format!("log of {source}: ");
        found
            .iter()
            .map(|finding| finding.trim_start_matches(&start).to_owned())
            .filter(|problem| !problem.ends_with("is not declared"))
            .collect::<Vec<_>>()
    };
    for source in ["crates/pressroom/src/main.rs", "hyper-1.0.0/src/lib.rs"] {
        assert_eq!(record(source, vec![text("otelTraceID", "0a")]), NONE);
        for (name, problem) in [
            ("error", "the name error is a namespace too"),
            ("http.request", "the name http.request is a namespace too"),
            ("order.itemCount", "the name order.itemCount is malformed"),
            ("order..items", "the name order..items is malformed"),
            ("order.item-count", "the name order.item-count is malformed"),
            ("1st.order", "the name 1st.order is malformed"),
        ] {
            let problems = record(source, vec![text(name, "x")]);
            assert!(problems.contains(&problem.to_owned()), "{name}: {problems:?}");
        }
        assert_eq!(
            record(source, vec![int("user.id", 7)])[..1],
            ["the attribute user.id is declared as string but is int"]
        );
    }
    let ours = "crates/pressroom/src/main.rs";
    assert_eq!(
        record(ours, vec![text("order", "x"), int("order.id", 7)]),
        [
            "the attribute order is the namespace of order.id",
            "the name order has no namespace"
        ]
    );
    let bad_metric = of_metric("requestCount", "1", sum(true, Vec::new()));
    assert!(bad_metric.contains(&"metric requestCount: the name is malformed".to_owned()));
}

#[test]
fn a_template_attribute_has_any_key_and_one_type() {
    let list = Value::ArrayValue(ArrayValue {
        values: vec![AnyValue {
            value: Some(Value::StringValue("text/html".to_owned())),
        }],
    });
    let of_header = |value| {
        let header = attribute("http.request.header.accept", value);
        of_span(span("made.up", SpanKind::Internal, vec![header]))
    };
    assert_eq!(of_header(list), ["span made.up: is not declared"]);
    assert_eq!(
        of_header(Value::StringValue("text/html".to_owned())),
        [
            "span made.up: is not declared",
            "span made.up: the attribute http.request.header.accept is declared as string[] but is string",
        ]
    );
}

#[test]
fn the_resource_is_checked_with_every_signal() {
    let findings = registry().check_logs(&ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: resource().attributes.split_off(1),
                ..Resource::default()
            }),
            ..ResourceLogs::default()
        }],
    });
    assert_eq!(
        shown(findings),
        ["resource: the required attribute service.name is missing"]
    );
}
