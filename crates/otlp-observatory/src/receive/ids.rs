//! Validates trace and span ids. Ids of the wrong length and all-zero ids are invalid. As `trace.proto` and
//! `logs.proto` specify, spans with invalid ids are removed, and invalid ids of other items are cleared.

use opentelemetry_proto::tonic::trace::v1::Span;

use crate::export::{Export, for_each_point};

/// Error message for the sender of removed spans.
pub(super) const REASON: &str = "trace_id must be 16 bytes and span_id 8 bytes, and neither may be all zeros";

/// Removes spans with invalid ids and clears other invalid ids; returns the number of spans removed.
pub(super) fn check(export: &mut Export) -> usize {
    let mut rejected = 0;
    match export {
        Export::Traces(request) => {
            let resources = request.resource_spans.iter_mut();
            for scope in resources.flat_map(|resource| &mut resource.scope_spans) {
                let before = scope.spans.len();
                scope.spans.retain_mut(|span| {
                    check_references(span);
                    is_trace_id(&span.trace_id) && is_span_id(&span.span_id)
                });
                rejected += before - scope.spans.len();
            }
        }
        Export::Metrics(request) => {
            let resources = request.resource_metrics.iter_mut();
            let scopes = resources.flat_map(|resource| &mut resource.scope_metrics);
            for metric in scopes.flat_map(|scope| &mut scope.metrics) {
                for_each_point(metric, |_, exemplars| {
                    for exemplar in exemplars {
                        check_pair(&mut exemplar.trace_id, &mut exemplar.span_id);
                    }
                });
            }
        }
        Export::Logs(request) => {
            let resources = request.resource_logs.iter_mut();
            let scopes = resources.flat_map(|resource| &mut resource.scope_logs);
            for record in scopes.flat_map(|scope| &mut scope.log_records) {
                check_pair(&mut record.trace_id, &mut record.span_id);
            }
        }
    }
    rejected
}

/// Clears an invalid parent id, which makes the span a root, and removes links with invalid ids.
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

/// Clears invalid ids. A span id is cleared with its trace id, without which it is meaningless.
fn check_pair(trace_id: &mut Vec<u8>, span_id: &mut Vec<u8>) {
    if !is_trace_id(trace_id) {
        trace_id.clear();
        span_id.clear();
    } else if !is_span_id(span_id) {
        span_id.clear();
    }
}

fn is_trace_id(id: &[u8]) -> bool {
    id.len() == 16 && id != [0; 16]
}

fn is_span_id(id: &[u8]) -> bool {
    id.len() == 8 && id != [0; 8]
}

#[cfg(test)]
mod tests;
