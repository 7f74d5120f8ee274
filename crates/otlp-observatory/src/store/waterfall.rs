//! Waterfall order of a trace: every span follows its parent, and siblings are ordered by start. Parent ids
//! come from senders, so parents may be missing and may form cycles.

use std::{
    collections::{HashMap, HashSet},
    iter,
    sync::Arc,
};

use super::ids::SpanId;

/// Copy of a span.
#[derive(Clone, Debug)]
pub(crate) struct StoredSpan {
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) start: u64,
    /// Index into [`StoredTrace::sources`](super::StoredTrace::sources).
    pub(crate) source: usize,
    /// The span in OTLP's protobuf encoding.
    pub(crate) encoded: Arc<[u8]>,
}

/// Returns the indices of `spans` in waterfall order. Every index occurs once, even if parents form cycles.
pub(crate) fn order(spans: &[StoredSpan]) -> Vec<usize> {
    let mut by_start: Vec<usize> = (0..spans.len()).collect();
    by_start.sort_by_key(|&span| spans[span].start);

    // If several spans have the same id, their children belong to the earliest.
    let mut owner: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
    for &span in by_start.iter().rev() {
        owner.insert(spans[span].id, span);
    }
    let parent_of = |span: usize| {
        let parent = owner.get(&spans[span].parent?).copied();
        parent.filter(|&parent| parent != span)
    };
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for &span in by_start.iter().rev() {
        match parent_of(span) {
            Some(parent) => children.entry(parent).or_default().push(span),
            None => roots.push(span),
        }
    }

    let mut ordered = Vec::with_capacity(spans.len());
    let mut placed = vec![false; spans.len()];
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
            let entrance = earliest_in_cycle(span, parent_of, |span| spans[span].start);
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

    /// Returns ids in waterfall order. Spans are tuples of id, parent (0 if none) and start.
    fn ordered(spans: &[(u64, u64, u64)]) -> Vec<u64> {
        let nodes: Vec<_> = spans
            .iter()
            .map(|&(span, parent, start)| StoredSpan {
                id: id(span),
                parent: (parent != 0).then(|| id(parent)),
                start,
                source: 0,
                encoded: Arc::default(),
            })
            .collect();
        order(&nodes).into_iter().map(|index| spans[index].0).collect()
    }

    #[test]
    fn spans_follow_their_parent_and_siblings_are_ordered_by_start() {
        let spans = [(5, 2, 30), (3, 1, 40), (2, 1, 20), (1, 0, 10), (4, 2, 25)];
        assert_eq!(ordered(&spans), [1, 2, 4, 5, 3]);
    }

    #[test]
    fn a_span_with_a_missing_parent_is_a_root() {
        assert_eq!(ordered(&[(2, 9, 20), (1, 8, 10), (3, 2, 5)]), [1, 2, 3]);
    }

    #[test]
    fn a_cycle_starts_at_its_earliest_span() {
        assert_eq!(ordered(&[(1, 1, 10)]), [1]);
        assert_eq!(
            ordered(&[(1, 2, 20), (2, 1, 10), (3, 1, 5), (4, 0, 50)]),
            [4, 2, 1, 3]
        );
    }

    #[test]
    fn spans_with_the_same_id_are_all_returned() {
        assert_eq!(ordered(&[(1, 0, 10), (1, 0, 20), (2, 1, 15)]), [1, 2, 1]);
    }

    #[test]
    fn a_deep_chain_does_not_overflow_the_stack() {
        let spans: Vec<_> = (1..=100_000).map(|span| (span, span - 1, 0)).collect();
        assert_eq!(ordered(&spans).len(), 100_000);
    }
}
