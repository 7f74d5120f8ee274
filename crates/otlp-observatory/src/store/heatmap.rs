//! Heat map of a histogram: the observations by bucket and time, of all series together.

use serde::Serialize;

use super::{
    UnixNano,
    bins::Times,
    fair_lock::FairLock,
    histogram::{Bin, Distribution},
    metrics::Metrics,
    readings::SampleValue,
    selection::Query,
};

/// Maximum number of buckets of exponential histograms; neighbours are merged.
const MAX_BUCKETS: usize = 40;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Heatmap {
    step_seconds: f64,
    /// Buckets in ascending order, without the empty ones at both ends.
    buckets: Vec<Bucket>,
    columns: Vec<Column>,
}

/// Bounds of a bucket; `None` is infinity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Bucket {
    from: Option<f64>,
    to: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct Column {
    time_unix_nano: UnixNano,
    /// Number of observations in each bucket.
    counts: Vec<u64>,
}

impl Heatmap {
    /// Returns the heat map of all series that match `query`.
    pub(super) fn of(metrics: &FairLock<Metrics>, query: &Query<'_>) -> Self {
        let mut times = Times::default();
        query.visit(metrics, |_, series| {
            times.add(series.points.iter().map(|point| point.time), &query.window);
        });
        let bins = times.bins();
        let mut columns: Vec<Option<Distribution>> = vec![None; bins.count];
        query.visit_samples(metrics, |series| {
            for sample in series.samples {
                if let SampleValue::Histogram { observed, .. } = sample.value {
                    match &mut columns[bins.index(sample.time)] {
                        Some(sum) => sum.merge(&observed),
                        empty => *empty = Some(observed),
                    }
                }
            }
        });
        let mut all: Option<Distribution> = None;
        for column in columns.iter().flatten() {
            match &mut all {
                Some(sum) => sum.merge(column),
                None => all = Some(column.clone()),
            }
        }
        let rows = all
            .as_mut()
            .map(|all| all.contiguous_bins(MAX_BUCKETS))
            .unwrap_or_default();
        let is_used = |bin: &Bin| bin.count > 0;
        let first = rows.iter().position(is_used).unwrap_or(0);
        let last = rows.iter().rposition(is_used).map_or(0, |last| last + 1);
        let rows = &rows[first..last.max(first)];
        let columns = columns.into_iter().enumerate().map(|(index, column)| {
            let bins_of_column = match (column, &all) {
                (Some(mut column), Some(all)) => {
                    column.match_scale(all);
                    column.bins()
                }
                _ => Vec::new(),
            };
            let count = |row: &Bin| {
                let same = |bin: &&Bin| bin.low == row.low && bin.high == row.high;
                bins_of_column.iter().find(same).map_or(0, |bin| bin.count)
            };
            Column {
                time_unix_nano: UnixNano(bins.time(index)),
                counts: rows.iter().map(count).collect(),
            }
        });
        let finite = |bound: f64| Some(bound).filter(|bound| bound.is_finite());
        Self {
            step_seconds: bins.seconds(),
            columns: columns.collect(),
            buckets: rows
                .iter()
                .map(|row| Bucket {
                    from: finite(row.low),
                    to: finite(row.high),
                })
                .collect(),
        }
    }
}
