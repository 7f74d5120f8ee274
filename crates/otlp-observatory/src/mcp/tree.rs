//! A trace as an indented list of spans that fits into a number of bytes. Equal leaves are one line; failed spans and
//! their ancestors come first, then the longest spans.

use std::collections::HashMap;

/// Maximum indentation.
const MAX_DEPTH: usize = 20;

/// Minimum number of equal siblings that become one line.
const MIN_GROUP: usize = 3;

/// Bytes kept after each span that has children for the number of those left out.
const OMISSION: usize = 40;

/// Span of a tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Branch {
    /// Index of the parent, which is smaller than that of the span.
    pub(super) parent: Option<usize>,
    /// Text that equal siblings share.
    pub(super) kind: String,
    pub(super) is_failed: bool,
    /// Nanoseconds.
    pub(super) duration: f64,
    /// Nanoseconds since the start of the trace.
    pub(super) start: f64,
}

/// Line of the list: one span, or several equal siblings.
#[derive(Debug)]
pub(super) struct Entry {
    /// Index of the line of the parent.
    pub(super) parent: Option<usize>,
    pub(super) depth: usize,
    /// Indices of the spans, in order of start.
    pub(super) spans: Vec<usize>,
    rank: (bool, f64),
}

/// Groups equal siblings without children. The order of the first of them is kept.
pub(super) fn entries(branches: &[Branch]) -> Vec<Entry> {
    let mut has_children = vec![false; branches.len()];
    for parent in branches.iter().filter_map(|branch| branch.parent) {
        has_children[parent] = true;
    }
    let key = |index: usize| {
        (
            branches[index].parent,
            &*branches[index].kind,
            branches[index].is_failed,
        )
    };
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for index in (0..branches.len()).filter(|&index| !has_children[index]) {
        groups.entry(key(index)).or_default().push(index);
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut entry_of: Vec<usize> = vec![0; branches.len()];
    for (index, branch) in branches.iter().enumerate() {
        let group = groups
            .get(&key(index))
            .filter(|group| !has_children[index] && group.len() >= MIN_GROUP);
        if group.is_some_and(|group| group[0] != index) {
            continue;
        }
        let parent = branch.parent.map(|parent| entry_of[parent]);
        let spans = group.cloned().unwrap_or_else(|| vec![index]);
        entry_of[index] = entries.len();
        entries.push(Entry {
            parent,
            depth: parent.map_or(0, |parent: usize| entries[parent].depth + 1),
            rank: (
                branch.is_failed,
                spans.iter().map(|&span| branches[span].duration).sum(),
            ),
            spans,
        });
    }
    entries
}

/// Returns the lines of the entries that fit into `room`, with the number of spans left out, and that number in total.
pub(super) fn fit(entries: &[Entry], texts: &[Vec<String>], room: usize) -> (Vec<String>, usize) {
    let indented =
        |entry: &Entry, line: &String| format!("{}{line}", "  ".repeat(entry.depth.min(MAX_DEPTH)));
    let lines: Vec<Vec<String>> = entries
        .iter()
        .zip(texts)
        .map(|(entry, texts)| texts.iter().map(|line| indented(entry, line)).collect())
        .collect();
    let size = |entry: usize| lines[entry].iter().map(|line| line.len() + 1).sum::<usize>();
    let total: usize = (0..entries.len()).map(size).sum();
    let mut is_kept = vec![total <= room; entries.len()];
    if total > room {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by(|&a, &b| {
            let ((a_failed, a_time), (b_failed, b_time)) = (entries[a].rank, entries[b].rank);
            b_failed.cmp(&a_failed).then(b_time.total_cmp(&a_time))
        });
        let mut left = room;
        let mut reserved = vec![0; entries.len()];
        for parent in entries.iter().filter_map(|entry| entry.parent) {
            reserved[parent] = OMISSION;
        }
        for entry in order {
            let path: Vec<usize> = std::iter::successors(Some(entry), |&entry| entries[entry].parent)
                .take_while(|&entry| !is_kept[entry])
                // A longer path does not fit.
                .take(room / OMISSION + 2)
                .collect();
            let top = path.last().and_then(|&entry| entries[entry].parent);
            if top.is_some_and(|top| !is_kept[top]) {
                continue;
            }
            let cost: usize = path.iter().map(|&entry| size(entry) + reserved[entry]).sum();
            if cost <= left {
                left -= cost;
                path.into_iter().for_each(|entry| is_kept[entry] = true);
            }
        }
    }
    // Spans left out below each kept entry, and those without a kept ancestor.
    let (mut below, mut elsewhere) = (vec![0; entries.len()], 0);
    for entry in (0..entries.len()).filter(|&entry| !is_kept[entry]) {
        let mut ancestors = std::iter::successors(entries[entry].parent, |&entry| entries[entry].parent);
        match ancestors.find(|&ancestor| is_kept[ancestor]) {
            Some(ancestor) => below[ancestor] += entries[entry].spans.len(),
            None => elsewhere += entries[entry].spans.len(),
        }
    }
    let mut kept = Vec::new();
    for (index, entry) in entries.iter().enumerate().filter(|(index, _)| is_kept[*index]) {
        kept.extend_from_slice(&lines[index]);
        if below[index] > 0 {
            kept.push(indented(entry, &format!("  … {} more below", below[index])));
        }
    }
    (kept, below.iter().sum::<usize>() + elsewhere)
}

/// Returns the time of each span during which none of its children ran, in nanoseconds.
pub(super) fn own_times(branches: &[Branch]) -> Vec<f64> {
    let mut children: Vec<Vec<(f64, f64)>> = vec![Vec::new(); branches.len()];
    for branch in branches {
        if let Some(parent) = branch.parent {
            let Branch { start, duration, .. } = branches[parent];
            let from = branch.start.max(start);
            let to = (branch.start + branch.duration).min(start + duration);
            if from < to {
                children[parent].push((from, to));
            }
        }
    }
    let own = |(branch, mut children): (&Branch, Vec<(f64, f64)>)| {
        children.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut covered, mut end) = (0.0, f64::MIN);
        for (from, to) in children {
            covered += (to - from.max(end)).max(0.0);
            end = end.max(to);
        }
        branch.duration - covered
    };
    branches.iter().zip(children).map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(parent: Option<usize>, kind: &str, start: f64, duration: f64) -> Branch {
        Branch {
            parent,
            kind: kind.to_owned(),
            is_failed: false,
            duration,
            start,
        }
    }

    /// A request with 100 equal statements, and a call with a failed child.
    fn branches() -> Vec<Branch> {
        let mut branches = vec![branch(None, "request", 0.0, 1_000.0)];
        branches.extend((0..50).map(|number| branch(Some(0), "select", f64::from(number) * 2.0, 1.0)));
        branches.push(branch(Some(0), "call", 100.0, 300.0));
        branches.push(Branch {
            is_failed: true,
            ..branch(Some(51), "attempt", 100.0, 5.0)
        });
        branches.extend((0..50).map(|number| branch(Some(0), "select", 400.0 + f64::from(number), 1.0)));
        branches
    }

    #[test]
    fn equal_siblings_are_one_line_where_the_first_of_them_is() {
        let entries = entries(&branches());
        let sizes: Vec<_> = entries
            .iter()
            .map(|entry| (entry.depth, entry.spans.len()))
            .collect();
        assert_eq!(sizes, [(0, 1), (1, 100), (1, 1), (2, 1)]);
        assert_eq!(entries[3].parent, Some(2));
    }

    #[test]
    fn failed_spans_and_their_ancestors_are_kept_before_the_longest() {
        let mut branches = branches();
        branches.extend((0..100).map(|number| branch(Some(0), &number.to_string(), 500.0, 400.0)));
        let entries = entries(&branches);
        let texts: Vec<_> = entries
            .iter()
            .map(|entry| {
                vec![format!(
                    "{} x {}",
                    entry.spans.len(),
                    branches[entry.spans[0]].kind
                )]
            })
            .collect();
        let (all, omitted) = fit(&entries, &texts, 10_000);
        assert_eq!((all.len(), omitted), (104, 0));
        let (kept, omitted) = fit(&entries, &texts, 150);
        let expected = [
            "1 x request",
            "  … 197 more below",
            "  1 x call",
            "    1 x attempt",
            "  1 x 0",
            "  1 x 1",
            "  1 x 2",
        ];
        assert_eq!((kept, omitted), (expected.map(str::to_owned).to_vec(), 197));
        assert_eq!(fit(&entries, &texts, 20), (Vec::new(), 203));
    }

    #[test]
    fn own_time_is_what_no_child_covers() {
        let branches = [
            branch(None, "a", 0.0, 100.0),
            branch(Some(0), "b", 10.0, 20.0),
            branch(Some(0), "c", 20.0, 30.0),
            // Goes on after its parent.
            branch(Some(0), "d", 90.0, 1_000.0),
            // Ran on a machine whose clock is slow.
            branch(Some(0), "e", -500.0, 10.0),
        ];
        assert_eq!(own_times(&branches)[..2], [50.0, 20.0]);
    }
}
