//! Export requests for the tests.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point::Value,
    },
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};

/// Paths for traces, metrics and logs.
pub const ADDRESSES: [&str; 3] = ["/v1/traces", "/v1/metrics", "/v1/logs"];

/// Returns a request with `count` spans of one trace.
pub fn traces(count: u8) -> ExportTraceServiceRequest {
    spans((1..=count).map(span))
}

pub fn span(number: u8) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![number; 8],
        name: format!("span {number}"),
        start_time_unix_nano: 1_795_342_907_000_000_000,
        end_time_unix_nano: 1_795_342_907_001_000_000,
        ..Span::default()
    }
}

pub fn spans(spans: impl IntoIterator<Item = Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: spans.into_iter().collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

pub fn logs() -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord {
                    time_unix_nano: 1_795_342_907_000_000_000,
                    severity_number: 9,
                    ..LogRecord::default()
                }],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

pub fn metrics() -> ExportMetricsServiceRequest {
    let point = NumberDataPoint {
        time_unix_nano: 1_795_342_907_000_000_000,
        value: Some(Value::AsInt(3)),
        ..NumberDataPoint::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric {
                    name: "gauge".to_owned(),
                    data: Some(Data::Gauge(Gauge {
                        data_points: vec![point],
                    })),
                    ..Metric::default()
                }],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
