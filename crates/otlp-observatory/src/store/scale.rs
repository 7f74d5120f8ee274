//! Start and duration of a trace: those of its root, extended by the spans whose times are plausible.

use std::collections::HashMap;

use super::{
    intern::InternId,
    skew::{self, Times},
    span_class::Role,
    traces::{SpanEntry, Trace, Traces},
    waterfall::{self, Node},
};

/// Returns the spans of a trace as nodes of a waterfall.
pub(crate) fn nodes<'a>(traces: &Traces, spans: impl Iterator<Item = &'a SpanEntry>) -> Vec<Node> {
    let mut clocks = HashMap::new();
    // Consecutive spans mostly have the same class.
    let mut latest: Option<(InternId, usize, bool, bool)> = None;
    let nodes = spans.map(|span| {
        let (_, clock, sends, receives) = match latest {
            Some(known @ (class, ..)) if class == span.class => known,
            _ => {
                let class = traces.classes.get(span.class);
                let next = clocks.len();
                let process = traces.sources.get(class.source).process();
                let clock = *clocks.entry(process).or_insert(next);
                let sends = matches!(class.role, Role::Send(_));
                let receives = matches!(class.role, Role::Task { .. } | Role::Receive(_));
                (span.class, clock, sends, receives)
            }
        };
        latest = Some((span.class, clock, sends, receives));
        Node {
            id: span.id,
            parent: span.parent,
            times: Times {
                start: span.start,
                duration: span.duration,
                clock,
                failed: span.failed,
                sends,
                receives,
            },
        }
    });
    nodes.collect()
}

/// Returns the start and the duration of a stored trace.
pub(crate) fn of_trace(traces: &Traces, trace: &Trace) -> (u64, u64) {
    let nodes = nodes(traces, trace.spans.iter());
    // The parents only matter between clocks.
    if nodes.iter().all(|node| node.times.clock == 0) {
        return of_nodes(&nodes, &vec![0; nodes.len()]);
    }
    of_nodes(&nodes, &waterfall::lay_out(&nodes, false).offsets)
}

/// Returns the start and the duration of a trace whose spans have the given clock offsets.
pub(crate) fn of_nodes(nodes: &[Node], offsets: &[i64]) -> (u64, u64) {
    let Some(root) = waterfall::root(nodes) else {
        return (0, 0);
    };
    let root = &nodes[root].times;
    let in_scale = nodes
        .iter()
        .zip(offsets)
        .filter(|(node, offset)| skew::is_in_scale(&node.times, **offset, root));
    let end = in_scale.map(|(node, _)| node.times.start.saturating_add(node.times.duration));
    (root.start, end.max().unwrap_or(0).saturating_sub(root.start))
}
