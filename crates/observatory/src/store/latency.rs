//! How long things took: percentiles of durations, exact.

/// Durations in nanoseconds, and how many of those that took them failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    durations: Vec<u64>,
    errors: usize,
}

/// Percentiles in nanoseconds; `None` of nothing.
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

    /// By nearest rank: the least duration that so many percent did not exceed.
    pub(crate) fn percentiles(mut self) -> Percentiles {
        // The greatest first: the smaller ones are then among those left of it.
        let p99_ns = self.take(99);
        let p95_ns = self.take(95);
        let p50_ns = self.take(50);
        Percentiles {
            p50_ns,
            p95_ns,
            p99_ns,
        }
    }

    /// The duration of rank `percent`, which may only fall from call to call.
    fn take(&mut self, percent: usize) -> Option<u64> {
        let rank = (self.durations.len() * percent).div_ceil(100).checked_sub(1)?;
        let (_, duration, _) = self.durations.select_nth_unstable(rank);
        Some(*duration)
    }
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
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(percentiles([]), [None; 3]);
        assert_eq!(percentiles([7]), [Some(7); 3]);
        assert_eq!(percentiles([2, 1]), [Some(1), Some(2), Some(2)]);
        assert_eq!(percentiles((1..=100).rev()), [Some(50), Some(95), Some(99)]);
        assert_eq!(percentiles(1..=1_000), [Some(500), Some(950), Some(990)]);
    }
}
