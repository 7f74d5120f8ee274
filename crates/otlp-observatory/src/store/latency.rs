//! Exact percentiles of durations, and the most frequent groups of operations.

use std::collections::HashMap;

/// Durations of operations in nanoseconds, and the number of operations that failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    durations: Vec<u64>,
    errors: usize,
}

/// Percentiles in nanoseconds; `None` without durations.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p95_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
}

impl Latencies {
    pub(crate) fn add(&mut self, duration: u64, failed: bool) {
        self.durations.push(duration);
        self.errors += usize::from(failed);
    }

    pub(crate) fn append(&mut self, mut others: Self) {
        self.durations.append(&mut others.durations);
        self.errors += others.errors;
    }

    pub(crate) fn count(&self) -> usize {
        self.durations.len()
    }

    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Computes the percentiles by nearest rank.
    pub(crate) fn percentiles(mut self) -> Percentiles {
        // In descending order, because a selection leaves the smaller ranks to its left.
        let p99_ns = self.percentile(99);
        let p95_ns = self.percentile(95);
        let p50_ns = self.percentile(50);
        Percentiles {
            p50_ns,
            p95_ns,
            p99_ns,
        }
    }

    /// Returns the duration at a percentile, which must not increase from call to call.
    fn percentile(&mut self, percent: usize) -> Option<u64> {
        let rank = (self.durations.len() * percent).div_ceil(100).checked_sub(1)?;
        let (_, duration, _) = self.durations.select_nth_unstable(rank);
        Some(*duration)
    }
}

/// Returns rows for the `limit` groups with the highest counts, in descending order.
pub(crate) fn most_frequent<K: Ord, V, R>(
    groups: HashMap<K, V>,
    limit: usize,
    count: impl Fn(&V) -> usize,
    mut row: impl FnMut(K, V) -> R,
) -> Vec<R> {
    let order = |(a, of_a): &(K, V), (b, of_b): &(K, V)| count(of_b).cmp(&count(of_a)).then_with(|| a.cmp(b));
    let mut groups: Vec<_> = groups.into_iter().collect();
    // Only the selected groups are sorted, because there may be many others.
    if groups.len() > limit {
        groups.select_nth_unstable_by(limit, order);
        groups.truncate(limit);
    }
    groups.sort_unstable_by(order);
    groups.into_iter().map(|(key, value)| row(key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(durations: impl IntoIterator<Item = u64>) -> [Option<u64>; 3] {
        let mut latencies = Latencies::default();
        durations
            .into_iter()
            .for_each(|duration| latencies.add(duration, false));
        let Percentiles {
            p50_ns,
            p95_ns,
            p99_ns,
        } = latencies.percentiles();
        [p50_ns, p95_ns, p99_ns]
    }

    #[test]
    fn the_most_frequent_groups_are_returned_in_order() {
        let groups = (0..100).map(|key| (key, key % 10)).collect();
        let keys = most_frequent(groups, 12, |count| *count, |key, _| key);
        assert_eq!(keys, [9, 19, 29, 39, 49, 59, 69, 79, 89, 99, 8, 18]);
    }

    #[test]
    fn percentiles_use_the_nearest_rank() {
        assert_eq!(percentiles([]), [None; 3]);
        assert_eq!(percentiles([7]), [Some(7); 3]);
        assert_eq!(percentiles([2, 1]), [Some(1), Some(2), Some(2)]);
        assert_eq!(percentiles((1..=100).rev()), [Some(50), Some(95), Some(99)]);
        assert_eq!(percentiles(1..=1_000), [Some(500), Some(950), Some(990)]);
    }
}
