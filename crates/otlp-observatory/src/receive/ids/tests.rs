use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans, span::Link},
};

use super::*;
use crate::samples;

fn span(trace_id: &[u8], span_id: &[u8]) -> Span {
    Span {
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        ..Span::default()
    }
}

fn export(spans: Vec<Span>) -> Export {
    Export::Traces(ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    })
}

#[test]
fn valid_ids_are_kept() {
    for mut checked in samples::exports("") {
        let original = checked.clone();
        assert_eq!(check(&mut checked), 0);
        assert_eq!(checked, original);
    }
}

#[test]
fn spans_without_valid_ids_are_removed_and_counted() {
    let valid = span(&[1; 16], &[1; 8]);
    let mut checked = export(vec![
        span(&[], &[1; 8]),
        span(&[0; 16], &[1; 8]),
        span(&[1; 15], &[1; 8]),
        span(&[1; 17], &[1; 8]),
        valid.clone(),
        span(&[1; 16], &[]),
        span(&[1; 16], &[0; 8]),
        span(&[1; 16], &[1; 9]),
    ]);
    assert_eq!(check(&mut checked), 7);
    assert_eq!(checked, export(vec![valid]));
}

#[test]
fn a_span_with_an_invalid_parent_becomes_a_root() {
    for parent in [&[0; 8][..], &[1; 7]] {
        let valid = span(&[1; 16], &[1; 8]);
        let mut checked = export(vec![Span {
            parent_span_id: parent.to_vec(),
            ..valid.clone()
        }]);
        assert_eq!(check(&mut checked), 0);
        assert_eq!(checked, export(vec![valid]));
    }
}

#[test]
fn links_with_invalid_ids_are_dropped_and_counted() {
    let link = |trace_id: &[u8], span_id: &[u8]| Link {
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        ..Link::default()
    };
    let good = link(&[2; 16], &[2; 8]);
    let mut checked = export(vec![Span {
        links: vec![link(&[], &[]), good.clone(), link(&[2; 16], &[0; 8])],
        dropped_links_count: 1,
        ..span(&[1; 16], &[1; 8])
    }]);
    assert_eq!(check(&mut checked), 0);
    let expected = Span {
        links: vec![good],
        dropped_links_count: 3,
        ..span(&[1; 16], &[1; 8])
    };
    assert_eq!(checked, export(vec![expected]));
}

#[test]
fn invalid_ids_of_log_records_are_cleared() {
    let record = |trace_id: &[u8], span_id: &[u8]| LogRecord {
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        ..LogRecord::default()
    };
    let export = |log_records| {
        Export::Logs(ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records,
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        })
    };
    let mut checked = export(vec![
        record(&[0; 16], &[1; 8]),
        record(&[1; 16], &[1; 7]),
        record(&[1; 3], &[]),
    ]);
    assert_eq!(check(&mut checked), 0);
    assert_eq!(
        checked,
        export(vec![record(&[], &[]), record(&[1; 16], &[]), record(&[], &[])])
    );
}
