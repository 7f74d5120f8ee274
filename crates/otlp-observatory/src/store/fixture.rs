//! Builders for the telemetry that tests use.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
        number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};

use crate::export::Export;

/// Current time in tests, in nanoseconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000_000_000_000;

/// One millisecond in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn resource(service: &str) -> Resource {
    Resource {
        attributes: vec![text("service.name", service)],
        ..Resource::default()
    }
}

pub(crate) fn scope(name: &str) -> InstrumentationScope {
    InstrumentationScope {
        name: name.to_owned(),
        ..InstrumentationScope::default()
    }
}

/// Returns the bytes of a trace id.
pub(crate) fn trace_id(number: u64) -> Vec<u8> {
    u128::from(number).to_be_bytes().to_vec()
}

/// Returns a span of one millisecond that ends at [`NOW`]; a `parent` of 0 means none.
pub(crate) fn span(trace: u64, id: u64, parent: u64, name: &str) -> Span {
    Span {
        trace_id: trace_id(trace),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 {
            Vec::new()
        } else {
            parent.to_be_bytes().to_vec()
        },
        name: name.to_owned(),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: NOW - MS,
        end_time_unix_nano: NOW,
        ..Span::default()
    }
}

/// Sets the kind and string attributes of `span`.
pub(crate) fn of_kind(span: Span, kind: SpanKind, attributes: &[(&str, &str)]) -> Span {
    Span {
        kind: kind as i32,
        attributes: attributes.iter().map(|(key, value)| text(key, value)).collect(),
        ..span
    }
}

/// Sets the status of `span` to error.
pub(crate) fn failed(span: Span) -> Span {
    Span {
        status: Some(Status {
            message: "it failed".to_owned(),
            code: StatusCode::Error as i32,
        }),
        ..span
    }
}

/// Sets the duration of `span`, in nanoseconds, and its end to [`NOW`].
pub(crate) fn lasting(span: Span, duration: u64) -> Span {
    Span {
        start_time_unix_nano: NOW - duration,
        end_time_unix_nano: NOW,
        ..span
    }
}

pub(crate) fn spans(service: &str, spans: Vec<Span>) -> Export {
    Export::Traces(ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(service)),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope("test")),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    })
}

/// Returns a log record of `trace`; a `trace` of 0 means none.
pub(crate) fn record(trace: u64, severity: i32, body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: NOW,
        severity_number: severity,
        body: Some(AnyValue {
            value: Some(Value::StringValue(body.to_owned())),
        }),
        trace_id: if trace == 0 { Vec::new() } else { trace_id(trace) },
        span_id: if trace == 0 {
            Vec::new()
        } else {
            1_u64.to_be_bytes().to_vec()
        },
        ..LogRecord::default()
    }
}

pub(crate) fn records(service: &str, log_records: Vec<LogRecord>) -> Export {
    Export::Logs(ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(service)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope("test")),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    })
}

/// Returns a counter with one cumulative point for `route`, which started one second before [`NOW`].
pub(crate) fn counted(name: &str, route: &str, time: u64, value: i64) -> Metric {
    let point = NumberDataPoint {
        attributes: vec![text("http.route", route)],
        start_time_unix_nano: NOW - 1_000 * MS,
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsInt(value)),
        ..NumberDataPoint::default()
    };
    Metric {
        name: name.to_owned(),
        unit: "{request}".to_owned(),
        description: "Requests.".to_owned(),
        data: Some(metric::Data::Sum(Sum {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Cumulative as i32,
            is_monotonic: true,
        })),
        ..Metric::default()
    }
}

pub(crate) fn metrics(service: &str, metrics: Vec<Metric>) -> Export {
    Export::Metrics(ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(service)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope("test")),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    })
}
