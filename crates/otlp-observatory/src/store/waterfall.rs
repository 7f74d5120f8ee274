//! Waterfall order of a trace: every span follows its parent, and siblings are ordered by start. Ids come from senders, so
//! several spans may have the same id, and parents may be missing and may form cycles.

use std::{
    collections::{HashMap, HashSet},
    iter,
    sync::Arc,
};

use super::{
    ids::SpanId,
    skew::{self, Times},
};

/// Maximum number of spans with the same id among which the parent of a span is selected.
const MAX_PARENTS: usize = 16;

/// Copy of a span.
#[derive(Clone, Debug)]
pub(crate) struct StoredSpan {
    pub(crate) id: SpanId,
    /// Index into [`StoredTrace::sources`](super::StoredTrace::sources).
    pub(crate) source: usize,
    /// Index of the parent into [`StoredTrace::spans`](super::StoredTrace::spans).
    pub(crate) parent: Option<usize>,
    /// Whether the parent is not among the spans of the trace.
    pub(crate) is_orphan: bool,
    /// Nanoseconds to add to the times of the span, so that they are plausible below its parent.
    pub(crate) clock_offset: i64,
    /// The span in OTLP's protobuf encoding.
    pub(crate) encoded: Arc<[u8]>,
}

/// Identity and times of a span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) times: Times,
}

/// Arrangement of the spans of a trace. All lists but `order` are indexed like the spans.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Indices of the spans in waterfall order.
    pub(crate) order: Vec<usize>,
    /// Indices of the parents. A span that precedes its parent, which is possible in a cycle, has none.
    pub(crate) parents: Vec<Option<usize>>,
    /// Whether the parent is not among the spans.
    pub(crate) orphans: Vec<bool>,
    /// Nanoseconds to add to the times of each span, so that they are plausible.
    pub(crate) offsets: Vec<i64>,
}

/// Returns the index of the root: the earliest span without a parent, or else the earliest span.
pub(crate) fn root(nodes: &[Node]) -> Option<usize> {
    let rank = |node: &Node| (node.times.start == 0, node.parent.is_some(), node.times.start);
    (0..nodes.len()).min_by_key(|&index| rank(&nodes[index]))
}

/// Arranges spans; with `align`, by their start according to the clock of their parent.
pub(crate) fn lay_out(nodes: &[Node], align: bool) -> Layout {
    let mut parents = parents(nodes);
    let orphans = nodes.iter().zip(&parents);
    let orphans =
        orphans.map(|(node, parent)| parent.is_none() && node.parent.is_some_and(|id| id != node.id));
    let orphans = orphans.collect();
    let mut starts: Vec<u64> = nodes.iter().map(|node| node.times.start).collect();
    let mut order = order(&starts, &parents);
    let mut offsets = vec![0; nodes.len()];
    if let Some(root) = root(nodes) {
        let mut placed = vec![false; nodes.len()];
        for &span in &order {
            // A span that precedes its parent starts a cycle.
            parents[span] = parents[span].filter(|&parent| placed[parent]);
            placed[span] = true;
            if span != root {
                let parent = parents[span].unwrap_or(root);
                offsets[span] = skew::offset(&nodes[span].times, &nodes[parent].times, offsets[parent]);
            }
        }
    }
    if align && offsets.iter().any(|&offset| offset != 0) {
        for (start, &offset) in starts.iter_mut().zip(&offsets) {
            *start = skew::moved(*start, offset);
        }
        order = self::order(&starts, &parents);
    }
    Layout {
        order,
        parents,
        orphans,
        offsets,
    }
}

/// Returns the index of the parent of each span. Among several spans with the parent's id, the earliest of the same process
/// is the parent, or else the earliest.
fn parents(nodes: &[Node]) -> Vec<Option<usize>> {
    let mut by_id: Vec<usize> = (0..nodes.len()).collect();
    by_id.sort_by_key(|&span| (nodes[span].id, nodes[span].times.start));
    let parent_of = |span: usize| {
        let id = nodes[span].parent?;
        let first = by_id.partition_point(|&other| nodes[other].id < id);
        let same_id = by_id[first..].iter().take(MAX_PARENTS).copied();
        let same_id = same_id.take_while(|&other| nodes[other].id == id);
        let mut candidates = same_id.filter(|&other| other != span);
        let is_near = |other: &usize| nodes[*other].times.clock == nodes[span].times.clock;
        candidates.clone().find(is_near).or_else(|| candidates.next())
    };
    (0..nodes.len()).map(parent_of).collect()
}

/// Returns the indices of spans in waterfall order. Every index occurs once, even if parents form cycles.
fn order(starts: &[u64], parents: &[Option<usize>]) -> Vec<usize> {
    let mut by_start: Vec<usize> = (0..starts.len()).collect();
    by_start.sort_by_key(|&span| starts[span]);
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for &span in by_start.iter().rev() {
        match parents[span] {
            Some(parent) => children.entry(parent).or_default().push(span),
            None => roots.push(span),
        }
    }

    let mut ordered = Vec::with_capacity(starts.len());
    let mut placed = vec![false; starts.len()];
    let mut descend = |from: usize, placed: &mut [bool]| {
        let mut open = vec![from];
        while let Some(span) = open.pop() {
            if std::mem::replace(&mut placed[span], true) {
                continue;
            }
            ordered.push(span);
            // Children are in descending order of start, so that the earliest is popped next.
            open.extend(children.get(&span).into_iter().flatten());
        }
    };
    for root in roots.into_iter().rev() {
        descend(root, &mut placed);
    }
    // The remaining spans are part of a cycle or descend from one.
    for span in by_start {
        if !placed[span] {
            let entrance = earliest_in_cycle(span, |span| parents[span], |span| starts[span]);
            descend(entrance.unwrap_or(span), &mut placed);
        }
    }
    ordered
}

/// Returns the earliest span of the cycle among the ancestors of `span`.
fn earliest_in_cycle(
    span: usize,
    parent_of: impl Fn(usize) -> Option<usize>,
    start_of: impl Fn(usize) -> u64,
) -> Option<usize> {
    let mut visited = HashSet::new();
    let mut ancestors = iter::successors(Some(span), |&span| parent_of(span));
    let repeated = ancestors.find(|&span| !visited.insert(span))?;
    let cycle = iter::successors(Some(repeated), |&span| {
        parent_of(span).filter(|&parent| parent != repeated)
    });
    cycle.min_by_key(|&span| start_of(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> SpanId {
        SpanId::from_bytes(&number.to_be_bytes()).expect("not zero")
    }

    /// Returns nodes for tuples of id, parent (0 if none), start in milliseconds, and clock.
    fn nodes(spans: &[(u64, u64, u64, usize)]) -> Vec<Node> {
        let node = |&(span, parent, start, clock): &(u64, u64, u64, usize)| Node {
            id: id(span),
            parent: (parent != 0).then(|| id(parent)),
            times: Times {
                start: start * 1_000_000,
                duration: 1_000_000,
                clock,
                ..Times::default()
            },
        };
        spans.iter().map(node).collect()
    }

    /// Returns ids in waterfall order. Spans are tuples of id, parent (0 if none) and start.
    fn ordered(spans: &[(u64, u64, u64)]) -> Vec<u64> {
        let spans: Vec<_> = spans
            .iter()
            .map(|&(span, parent, start)| (span, parent, start, 0))
            .collect();
        let layout = lay_out(&nodes(&spans), false);
        layout.order.into_iter().map(|index| spans[index].0).collect()
    }

    #[test]
    fn spans_follow_their_parent_and_siblings_are_ordered_by_start() {
        let spans = [(5, 2, 30), (3, 1, 40), (2, 1, 20), (1, 0, 10), (4, 2, 25)];
        assert_eq!(ordered(&spans), [1, 2, 4, 5, 3]);
    }

    #[test]
    fn a_span_with_a_missing_parent_is_an_orphan_among_the_roots() {
        assert_eq!(ordered(&[(2, 9, 20), (1, 8, 10), (3, 2, 5)]), [1, 2, 3]);
        let layout = lay_out(
            &nodes(&[(2, 9, 20, 0), (1, 0, 10, 0), (3, 2, 25, 0), (4, 4, 30, 0)]),
            false,
        );
        assert_eq!(layout.orphans, [true, false, false, false]);
        assert_eq!(layout.parents, [None, None, Some(0), None]);
    }

    #[test]
    fn a_cycle_starts_at_its_earliest_span() {
        assert_eq!(ordered(&[(1, 1, 10)]), [1]);
        let cycle = [(1, 2, 20), (2, 1, 10), (3, 1, 5), (4, 0, 50)];
        assert_eq!(ordered(&cycle), [4, 2, 1, 3]);
        let cycle: Vec<_> = cycle.map(|(span, parent, start)| (span, parent, start, 0)).into();
        assert_eq!(
            lay_out(&nodes(&cycle), true).parents,
            [Some(1), None, Some(0), None]
        );
    }

    #[test]
    fn a_parent_is_found_in_the_same_process_among_spans_with_the_same_id() {
        let spans = [
            (1, 0, 10, 0),
            (2, 1, 20, 0),
            (2, 1, 30, 1),
            (3, 2, 40, 1),
            (4, 2, 50, 0),
            (5, 2, 60, 2),
        ];
        let layout = lay_out(&nodes(&spans), false);
        assert_eq!(
            layout.parents,
            [None, Some(0), Some(0), Some(2), Some(1), Some(1)]
        );
        assert_eq!(layout.order, [0, 1, 4, 5, 2, 3]);
    }

    #[test]
    fn aligned_siblings_are_ordered_by_their_aligned_start() {
        let spans = [
            (1, 0, 5_000, 0),
            (2, 1, 5_000, 0),
            (3, 1, 2_000, 1),
            (4, 3, 2_001, 1),
        ];
        assert_eq!(lay_out(&nodes(&spans), false).order, [0, 2, 3, 1]);
        let layout = lay_out(&nodes(&spans), true);
        assert_eq!(layout.offsets, [0, 0, 3_000_000_000, 3_000_000_000]);
        assert_eq!(layout.order, [0, 1, 2, 3]);
    }

    #[test]
    fn a_deep_chain_and_equal_ids_take_linear_time_and_do_not_overflow_the_stack() {
        let spans: Vec<_> = (1..=100_000).map(|span| (span, span - 1, 0)).collect();
        assert_eq!(ordered(&spans).len(), 100_000);
        assert_eq!(ordered(&vec![(1, 1, 0); 100_000]).len(), 100_000);
    }
}
