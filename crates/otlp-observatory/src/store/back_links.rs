//! Links in the direction that spans do not know: spans of other traces that link to a trace.

use std::sync::Arc;

use memchr::memmem::Finder;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde::Serialize;

use super::{
    Store,
    ids::{SpanId, TraceId},
    search::SearchPage,
    source::Source,
    traces::SpanEntry,
};

/// Maximum number of traces whose links are returned.
const MAX_TRACES: usize = 100;

/// Maximum number of links of one trace.
const MAX_LINKS: usize = 100;

/// Link of a span to a span of another trace.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BackLink {
    trace_id: TraceId,
    span_id: SpanId,
    service: Arc<str>,
    name: String,
    /// Span that the link leads to.
    to_span_id: Option<SpanId>,
}

impl Store {
    /// Returns the links to spans of `target` from the newest traces. A long search stops early, like every search.
    pub(crate) fn back_links(&self, target: TraceId) -> Vec<BackLink> {
        // Most spans do not contain the id, and are not decoded.
        let finder = Finder::new(target.as_bytes());
        let page = SearchPage::collect(&self.traces, None, MAX_TRACES, |traces, before, visit| {
            traces.before(before).all(|(position, trace)| {
                let mentions = |span: &&SpanEntry| trace.id != target && finder.find(&span.encoded).is_some();
                let spans = trace.spans.iter().filter(mentions);
                let links: Vec<_> = spans
                    .flat_map(|span| links_of(span, trace.id, traces.source(span), target))
                    .take(MAX_LINKS)
                    .collect();
                visit(position, (!links.is_empty()).then_some((0, links)))
            })
        });
        page.entries.into_iter().flatten().collect()
    }
}

/// Returns the links of a span to spans of `target`.
fn links_of(entry: &SpanEntry, trace_id: TraceId, source: &Source, target: TraceId) -> Vec<BackLink> {
    let span = Span::decode(&*entry.encoded).unwrap_or_default();
    let links = span.links.iter();
    links
        .filter(|link| TraceId::from_bytes(&link.trace_id) == Some(target))
        .map(|link| BackLink {
            trace_id,
            span_id: entry.id,
            service: source.service.clone(),
            name: span.name.clone(),
            to_span_id: SpanId::from_bytes(&link.span_id),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::span::Link;
    use serde_json::json;

    use super::*;
    use crate::store::fixture::{NOW, span, spans, trace_id};

    #[test]
    fn spans_of_other_traces_that_link_to_a_trace_are_found() {
        let link = |trace: u64, span: u64| Link {
            trace_id: trace_id(trace),
            span_id: span.to_be_bytes().to_vec(),
            ..Link::default()
        };
        let store = Store::new(16 << 20);
        let mut batch = span(2, 7, 0, "batch");
        batch.links = vec![link(1, 4), link(3, 4), link(1, 5)];
        let mut own = span(1, 5, 4, "own");
        own.links = vec![link(1, 4)];
        store.insert_at(spans("app", vec![span(1, 4, 0, "root"), own]), NOW);
        store.insert_at(spans("worker", vec![batch, span(2, 8, 7, "child")]), NOW);

        let found = |trace: u64| {
            let target = TraceId::from_bytes(&trace_id(trace)).expect("an id");
            serde_json::to_value(store.back_links(target)).expect("JSON")
        };
        let from_batch = |to: &str| {
            json!({
                "trace_id": "00000000000000000000000000000002",
                "span_id": "0000000000000007",
                "service": "worker",
                "name": "batch",
                "to_span_id": to,
            })
        };
        assert_eq!(
            found(1),
            json!([from_batch("0000000000000004"), from_batch("0000000000000005")])
        );
        assert_eq!(found(3), json!([from_batch("0000000000000004")]));
        assert_eq!(found(2), json!([]));
    }
}
