//! Validates trace and span ids, by which telemetry is found. Ids of the wrong length or all zeros are
//! invalid: spans with invalid ids are removed, and other items lose theirs, as `trace.proto` and
//! `logs.proto` specify.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest,
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
    },
    trace::v1::Span,
};

use crate::export::{Export, for_each_point};

/// Number of spans removed from a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RejectedSpans {
    pub(super) count: usize,
}

impl RejectedSpans {
    /// Error message for the sender.
    pub(super) const REASON: &str = "trace_id must be 16 bytes and span_id 8 bytes, neither of them all zero";

    pub(super) fn response(rejected: Option<Self>) -> ExportTraceServiceResponse {
        ExportTraceServiceResponse {
            partial_success: rejected.map(|rejected| ExportTracePartialSuccess {
                rejected_spans: i64::try_from(rejected.count).unwrap_or(i64::MAX),
                error_message: Self::REASON.to_owned(),
            }),
        }
    }
}

/// Removes invalid ids from `export`.
pub(super) fn check(export: &mut Export) -> Option<RejectedSpans> {
    match export {
        Export::Traces(request) => {
            let count = check_spans(request);
            (count > 0).then_some(RejectedSpans { count })
        }
        Export::Metrics(request) => {
            check_exemplars(request);
            None
        }
        Export::Logs(request) => {
            check_log_records(request);
            None
        }
    }
}

fn check_spans(request: &mut ExportTraceServiceRequest) -> usize {
    let mut rejected = 0;
    for scope in request
        .resource_spans
        .iter_mut()
        .flat_map(|resource| &mut resource.scope_spans)
    {
        let before = scope.spans.len();
        scope
            .spans
            .retain(|span| is_trace_id(&span.trace_id) && is_span_id(&span.span_id));
        rejected += before - scope.spans.len();
        scope.spans.iter_mut().for_each(check_references);
    }
    rejected
}

/// Makes a span with an invalid parent id a root, and removes links with invalid ids.
fn check_references(span: &mut Span) {
    if !is_span_id(&span.parent_span_id) {
        span.parent_span_id.clear();
    }
    let before = span.links.len();
    span.links
        .retain(|link| is_trace_id(&link.trace_id) && is_span_id(&link.span_id));
    let dropped = u32::try_from(before - span.links.len()).unwrap_or(u32::MAX);
    span.dropped_links_count = span.dropped_links_count.saturating_add(dropped);
}

fn check_log_records(request: &mut ExportLogsServiceRequest) {
    for record in request
        .resource_logs
        .iter_mut()
        .flat_map(|resource| &mut resource.scope_logs)
        .flat_map(|scope| &mut scope.log_records)
    {
        check_pair(&mut record.trace_id, &mut record.span_id);
    }
}

fn check_exemplars(request: &mut ExportMetricsServiceRequest) {
    for metric in request
        .resource_metrics
        .iter_mut()
        .flat_map(|resource| &mut resource.scope_metrics)
        .flat_map(|scope| &mut scope.metrics)
    {
        for_each_point(metric, |_, exemplars| {
            for exemplar in exemplars {
                check_pair(&mut exemplar.trace_id, &mut exemplar.span_id);
            }
        });
    }
}

/// Clears invalid ids; a span id is meaningless without its trace id.
fn check_pair(trace_id: &mut Vec<u8>, span_id: &mut Vec<u8>) {
    if !is_trace_id(trace_id) {
        trace_id.clear();
        span_id.clear();
    } else if !is_span_id(span_id) {
        span_id.clear();
    }
}

fn is_trace_id(id: &[u8]) -> bool {
    id.len() == 16 && id.iter().any(|byte| *byte != 0)
}

fn is_span_id(id: &[u8]) -> bool {
    id.len() == 8 && id.iter().any(|byte| *byte != 0)
}

#[cfg(test)]
mod tests;
