//! The order in which a trace is shown: every span after its parent, siblings by start. Senders may name any parent, so
//! parents that are missing and circles are ordinary here.

use std::collections::{HashMap, HashSet};

use super::{ids::SpanId, traces::SpanEntry};

/// What the order goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) start: u64,
}

impl From<&SpanEntry> for Place {
    fn from(span: &SpanEntry) -> Self {
        Self {
            id: span.id,
            parent: span.parent,
            start: span.start,
        }
    }
}

/// The positions in `spans` in the order of the waterfall; each once, whatever the parents are.
pub(crate) fn order(spans: &[Place]) -> Vec<usize> {
    let mut by_start: Vec<usize> = (0..spans.len()).collect();
    by_start.sort_by_key(|&span| spans[span].start);

    // Of spans with the same id the earliest has the children.
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
            // Latest first, so that the earliest is the next to be taken.
            open.extend(children.get(&span).into_iter().flatten());
        }
    };
    for root in roots.into_iter().rev() {
        descend(root, &mut placed);
    }
    // What is left is in circles or below one.
    for span in by_start {
        if !placed[span] {
            let entrance = earliest_of_circle(span, parent_of, |span| spans[span].start);
            descend(entrance, &mut placed);
        }
    }
    ordered
}

/// The earliest span of the circle that the parents of `span` lead into.
fn earliest_of_circle(
    span: usize,
    parent_of: impl Fn(usize) -> Option<usize>,
    start_of: impl Fn(usize) -> u64,
) -> usize {
    let mut above = HashSet::new();
    let mut at = span;
    while above.insert(at) {
        match parent_of(at) {
            Some(parent) => at = parent,
            None => return at,
        }
    }
    let mut earliest = at;
    let mut next = parent_of(at);
    while let Some(span) = next.filter(|&span| span != at) {
        if start_of(span) < start_of(earliest) {
            earliest = span;
        }
        next = parent_of(span);
    }
    earliest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> SpanId {
        SpanId::from_bytes(&number.to_be_bytes()).expect("not zero")
    }

    /// The ids in order, of spans given as id, parent (0 is none) and start.
    fn ordered(spans: &[(u64, u64, u64)]) -> Vec<u64> {
        let places: Vec<_> = spans
            .iter()
            .map(|&(span, parent, start)| Place {
                id: id(span),
                parent: (parent != 0).then(|| id(parent)),
                start,
            })
            .collect();
        order(&places).into_iter().map(|place| spans[place].0).collect()
    }

    #[test]
    fn every_span_comes_after_its_parent_and_siblings_by_start() {
        let spans = [(5, 2, 30), (3, 1, 40), (2, 1, 20), (1, 0, 10), (4, 2, 25)];
        assert_eq!(ordered(&spans), [1, 2, 4, 5, 3]);
    }

    #[test]
    fn a_span_whose_parent_is_not_kept_is_a_root() {
        assert_eq!(ordered(&[(2, 9, 20), (1, 8, 10), (3, 2, 5)]), [1, 2, 3]);
    }

    #[test]
    fn circles_are_entered_at_their_earliest_span() {
        assert_eq!(ordered(&[(1, 1, 10)]), [1]);
        assert_eq!(
            ordered(&[(1, 2, 20), (2, 1, 10), (3, 1, 5), (4, 0, 50)]),
            [4, 2, 1, 3]
        );
    }

    #[test]
    fn spans_of_the_same_id_are_all_shown() {
        assert_eq!(ordered(&[(1, 0, 10), (1, 0, 20), (2, 1, 15)]), [1, 2, 1]);
    }

    #[test]
    fn a_chain_as_deep_as_a_trace_is_long_is_no_matter() {
        let spans: Vec<_> = (1..=100_000).map(|span| (span, span - 1, 0)).collect();
        assert_eq!(ordered(&spans).len(), 100_000);
    }
}
