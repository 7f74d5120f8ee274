//! Distribution of the observations of an interval, from explicit or exponential histograms: the difference
//! of two points, and percentiles by linear interpolation within buckets. Bucket counts from senders may be
//! inconsistent.

use std::collections::BTreeMap;

use super::points::{Histogram, HistogramBuckets, Packed};

/// Distribution of observations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    /// Sum of the observations; NaN if unknown.
    pub(crate) sum: f64,
    bins: Vec<Bin>,
}

/// Number of observations between `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bin {
    low: f64,
    high: f64,
    count: u64,
}

impl Distribution {
    /// Returns the distribution of all observations of `histogram`.
    pub(crate) fn of(histogram: &Histogram) -> Self {
        let bins = match &histogram.buckets {
            HistogramBuckets::Explicit { bounds, counts } => explicit(bounds, counts.iter()),
            HistogramBuckets::Exponential { .. } => Exponential::of(histogram)
                .map(|buckets| buckets.bins())
                .unwrap_or_default(),
        };
        Self {
            count: histogram.count,
            sum: histogram.sum,
            bins,
        }
    }

    /// Returns the distribution of observations of `histogram` since `before`; `None` if it does not continue
    /// `before`.
    pub(crate) fn between(before: &Histogram, histogram: &Histogram) -> Option<Self> {
        let bins = match (&before.buckets, &histogram.buckets) {
            (
                HistogramBuckets::Explicit {
                    bounds: old_bounds,
                    counts: old,
                },
                HistogramBuckets::Explicit { bounds, counts: new },
            ) => {
                if old_bounds != bounds {
                    return None;
                }
                let counts: Option<Vec<_>> = new
                    .iter()
                    .zip(old.iter())
                    .map(|(new, old)| new.checked_sub(old))
                    .collect();
                explicit(bounds, counts?.into_iter())
            }
            (HistogramBuckets::Exponential { .. }, HistogramBuckets::Exponential { .. }) => {
                Exponential::of(histogram)?
                    .subtract(Exponential::of(before)?)?
                    .bins()
            }
            _ => return None,
        };
        Some(Self {
            count: histogram.count.checked_sub(before.count)?,
            sum: histogram.sum - before.sum,
            bins,
        })
    }

    /// Estimates a quantile between 0 and 1; `None` without observations.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = self
            .bins
            .iter()
            .fold(0_u64, |total, bin| total.saturating_add(bin.count));
        let rank = quantile * total as f64;
        let mut below = 0.0;
        let mut reached = None;
        for bin in self.bins.iter().filter(|bin| bin.count > 0) {
            let count = bin.count as f64;
            let fraction = ((rank - below) / count).clamp(0.0, 1.0);
            reached = Some(bin.low + (bin.high - bin.low) * fraction);
            below += count;
            if below >= rank {
                break;
            }
        }
        reached.filter(|value| value.is_finite())
    }
}

/// Returns the bins between explicit bounds.
///
/// The first bin starts at 0 if its upper bound is positive. As in Prometheus, observations above the last
/// bound count as equal to it.
fn explicit(bounds: &[f64], counts: impl Iterator<Item = u64>) -> Vec<Bin> {
    let low_of = |index: usize| match index.checked_sub(1) {
        Some(previous) => bounds.get(previous).copied(),
        None => bounds.first().map(|first| first.min(0.0)),
    };
    let bins = counts.enumerate().map_while(|(index, count)| {
        let low = low_of(index)?;
        let high = bounds.get(index).copied().unwrap_or(low);
        Some(Bin { low, high, count })
    });
    bins.collect()
}

/// Exponential buckets indexed by bucket number.
#[derive(Debug)]
struct Exponential {
    scale: i32,
    zero: u64,
    positive: BTreeMap<i64, u64>,
    negative: BTreeMap<i64, u64>,
}

impl Exponential {
    fn of(histogram: &Histogram) -> Option<Self> {
        let HistogramBuckets::Exponential {
            scale,
            zero,
            positive,
            negative,
        } = &histogram.buckets
        else {
            return None;
        };
        let by_index = |(offset, counts): &(i32, Packed)| {
            let indexes = i64::from(*offset)..;
            indexes
                .zip(counts.iter())
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        Some(Self {
            scale: *scale,
            zero: *zero,
            positive: by_index(positive),
            negative: by_index(negative),
        })
    }

    /// Reduces the resolution to `scale`; every step merges pairs of buckets.
    fn at_scale(self, scale: i32) -> Self {
        let steps = self.scale.saturating_sub(scale).clamp(0, 63);
        let merged = |counts: BTreeMap<i64, u64>| {
            let mut merged = BTreeMap::new();
            for (index, count) in counts {
                let sum: &mut u64 = merged.entry(index >> steps).or_default();
                *sum = sum.saturating_add(count);
            }
            merged
        };
        Self {
            scale,
            zero: self.zero,
            positive: merged(self.positive),
            negative: merged(self.negative),
        }
    }

    /// Removes the observations of `before`; `None` if `self` does not contain all of them.
    fn subtract(self, before: Self) -> Option<Self> {
        let scale = self.scale.min(before.scale);
        let (mut rest, before) = (self.at_scale(scale), before.at_scale(scale));
        rest.zero = rest.zero.checked_sub(before.zero)?;
        for (counts, before) in [
            (&mut rest.positive, before.positive),
            (&mut rest.negative, before.negative),
        ] {
            for (index, count) in before {
                let left = counts.get_mut(&index)?;
                *left = left.checked_sub(count)?;
            }
        }
        Some(rest)
    }

    fn bins(&self) -> Vec<Bin> {
        let step = (-f64::from(self.scale)).exp2();
        let bound = |index: i64| (index as f64 * step).exp2();
        let negative = self.negative.iter().rev().map(|(index, count)| Bin {
            low: -bound(index + 1),
            high: -bound(*index),
            count: *count,
        });
        let zero = Bin {
            low: 0.0,
            high: 0.0,
            count: self.zero,
        };
        let positive = self.positive.iter().map(|(index, count)| Bin {
            low: bound(*index),
            high: bound(index + 1),
            count: *count,
        });
        negative.chain([zero]).chain(positive).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{
        ExponentialHistogramDataPoint, HistogramDataPoint, exponential_histogram_data_point::Buckets,
    };

    use super::*;
    use crate::store::points::PointValue;

    fn histogram(value: PointValue) -> Histogram {
        match value {
            PointValue::Histogram(histogram) => *histogram,
            other => panic!("{other:?}"),
        }
    }

    fn explicit_of(bounds: &[f64], counts: &[u64]) -> Histogram {
        histogram(PointValue::histogram(&HistogramDataPoint {
            count: counts.iter().copied().fold(0, u64::wrapping_add),
            sum: Some(1.0),
            explicit_bounds: bounds.to_vec(),
            bucket_counts: counts.to_vec(),
            ..HistogramDataPoint::default()
        }))
    }

    fn exponential_of(scale: i32, zero_count: u64, offset: i32, counts: &[u64]) -> Histogram {
        histogram(PointValue::exponential(&ExponentialHistogramDataPoint {
            count: zero_count + counts.iter().sum::<u64>(),
            sum: Some(1.0),
            scale,
            zero_count,
            positive: Some(Buckets {
                offset,
                bucket_counts: counts.to_vec(),
            }),
            ..ExponentialHistogramDataPoint::default()
        }))
    }

    fn quantiles(histogram: &Histogram) -> [Option<f64>; 3] {
        let distribution = Distribution::of(histogram);
        let rounded = |value: f64| (value * 1e12).round() / 1e12;
        [0.5, 0.95, 1.0].map(|quantile| distribution.quantile(quantile).map(rounded))
    }

    #[test]
    fn percentiles_are_interpolated_within_their_bucket() {
        // Ten from 0 to 1, ten from 1 to 2: the median is 1, the 95th percentile is at 90 % of the second
        // bucket.
        assert_eq!(
            quantiles(&explicit_of(&[1.0, 2.0], &[10, 10, 0])),
            [Some(1.0), Some(1.9), Some(2.0)]
        );
        assert_eq!(quantiles(&explicit_of(&[1.0, 2.0], &[0, 0, 5])), [Some(2.0); 3]);
        assert_eq!(
            quantiles(&explicit_of(&[-2.0, 2.0], &[0, 4, 0])),
            [Some(0.0), Some(1.8), Some(2.0)]
        );
        assert_eq!(quantiles(&explicit_of(&[1.0], &[0, 0])), [None; 3]);
        assert_eq!(quantiles(&explicit_of(&[], &[])), [None; 3]);
    }

    #[test]
    fn exponential_bounds_are_powers_of_the_base() {
        // Scale 0 has base 2: bucket 0 is from 1 to 2, bucket 1 from 2 to 4.
        assert_eq!(
            quantiles(&exponential_of(0, 0, 0, &[2, 2])),
            [Some(2.0), Some(3.8), Some(4.0)]
        );
        // Scale 1 has base √2: buckets 2 and 3 are from 2 to 4.
        assert_eq!(
            quantiles(&exponential_of(1, 2, 2, &[2, 2]))[1..],
            [Some(3.824_264_068_712), Some(4.0)]
        );
    }

    #[test]
    fn the_difference_of_two_points_has_the_observations_between_them() {
        let before = explicit_of(&[1.0, 2.0], &[10, 0, 0]);
        let between =
            Distribution::between(&before, &explicit_of(&[1.0, 2.0], &[10, 4, 0])).expect("a continuation");
        assert_eq!((between.count, between.quantile(0.5)), (4, Some(1.5)));
        assert!(Distribution::between(&before, &explicit_of(&[1.0, 2.0], &[9, 4, 0])).is_none());
        assert!(Distribution::between(&before, &explicit_of(&[1.0, 3.0], &[10, 4, 0])).is_none());

        // The later point has a coarser scale: 4 from 1 to 2 and 2 from 2 to 4, of which `before` has 3.
        let before = exponential_of(1, 0, 0, &[2, 1]);
        let between =
            Distribution::between(&before, &exponential_of(0, 0, 0, &[4, 2])).expect("a continuation");
        assert_eq!((between.count, between.quantile(1.0)), (3, Some(4.0)));
        assert!(Distribution::between(&before, &exponential_of(0, 0, 0, &[2, 2])).is_none());
    }

    #[test]
    fn inconsistent_counts_are_harmless() {
        for odd in [
            explicit_of(&[f64::NAN, f64::INFINITY], &[u64::MAX, u64::MAX, u64::MAX, 5, 5]),
            explicit_of(&[5.0, 1.0], &[1, 1, 1]),
            explicit_of(&[1.0, 2.0, 3.0], &[1]),
            exponential_of(i32::MAX, 0, i32::MAX, &[1, 1]),
            exponential_of(i32::MIN, 0, i32::MIN, &[1, 1]),
        ] {
            let before = explicit_of(&[1.0], &[1, 1]);
            Distribution::between(&before, &odd);
            Distribution::between(&odd, &odd);
            Distribution::between(&exponential_of(0, 0, 0, &[1]), &odd);
            for value in quantiles(&odd).into_iter().flatten() {
                assert!(value.is_finite(), "{odd:?}");
            }
        }
    }
}
