//! Distribution of observations, from explicit or exponential histograms: the difference of two points, and
//! percentiles by linear interpolation within buckets. Bucket counts from senders may be inconsistent.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, exponential_histogram_data_point::Buckets,
};

/// Distribution of observations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    /// Sum of the observations; NaN if unknown.
    pub(crate) sum: f64,
    buckets: BucketCounts,
}

#[derive(Clone, Debug, PartialEq)]
enum BucketCounts {
    Explicit { bounds: Vec<f64>, counts: Vec<u64> },
    Exponential(Exponential),
}

/// Number of observations between `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bin {
    low: f64,
    high: f64,
    count: u64,
}

impl From<HistogramDataPoint> for Distribution {
    fn from(point: HistogramDataPoint) -> Self {
        Self {
            count: point.count,
            sum: point.sum.unwrap_or(f64::NAN),
            buckets: BucketCounts::Explicit {
                bounds: point.explicit_bounds,
                counts: point.bucket_counts,
            },
        }
    }
}

impl From<ExponentialHistogramDataPoint> for Distribution {
    fn from(point: ExponentialHistogramDataPoint) -> Self {
        Self {
            count: point.count,
            sum: point.sum.unwrap_or(f64::NAN),
            buckets: BucketCounts::Exponential(Exponential::of(&point)),
        }
    }
}

impl Distribution {
    /// Returns the distribution of the observations after `before`; `None` if `self` does not continue
    /// `before`.
    pub(crate) fn since(&self, before: &Self) -> Option<Self> {
        let buckets = match (&self.buckets, &before.buckets) {
            (
                BucketCounts::Explicit { bounds, counts },
                BucketCounts::Explicit {
                    bounds: old_bounds,
                    counts: old,
                },
            ) if bounds == old_bounds => {
                let counts = counts.iter().zip(old).map(|(new, old)| new.checked_sub(*old));
                BucketCounts::Explicit {
                    bounds: bounds.clone(),
                    counts: counts.collect::<Option<_>>()?,
                }
            }
            (BucketCounts::Exponential(new), BucketCounts::Exponential(old)) => {
                BucketCounts::Exponential(new.since(old)?)
            }
            _ => return None,
        };
        Some(Self {
            count: self.count.checked_sub(before.count)?,
            sum: self.sum - before.sum,
            buckets,
        })
    }

    /// Estimates quantiles between 0 and 1; `None` without observations.
    pub(crate) fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [Option<f64>; N] {
        let mut bins = match &self.buckets {
            BucketCounts::Explicit { bounds, counts } => explicit_bins(bounds, counts),
            BucketCounts::Exponential(buckets) => buckets.bins(),
        };
        bins.retain(|bin| bin.count > 0);
        quantiles.map(|quantile| estimate(&bins, quantile))
    }
}

/// Estimates a quantile from bins with observations.
fn estimate(bins: &[Bin], quantile: f64) -> Option<f64> {
    let total = bins
        .iter()
        .fold(0_u64, |total, bin| total.saturating_add(bin.count));
    let rank = quantile * total as f64;
    let mut below = 0.0;
    let mut reached = None;
    for bin in bins {
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

/// Returns the bins between explicit bounds.
///
/// The first bin starts at 0 if its upper bound is positive. As in Prometheus, observations above the last
/// bound count as equal to it.
fn explicit_bins(bounds: &[f64], counts: &[u64]) -> Vec<Bin> {
    let lowest = bounds.first().map(|first| first.min(0.0));
    let lows = lowest.into_iter().chain(bounds.iter().copied());
    let highs = bounds.iter().chain(bounds.last()).copied();
    let bins = lows.zip(highs).zip(counts);
    bins.map(|((low, high), &count)| Bin { low, high, count })
        .collect()
}

/// Exponential buckets.
#[derive(Clone, Debug, PartialEq)]
struct Exponential {
    scale: i32,
    /// Counts by sign and bucket index, in ascending order of the observations: the indices of negative
    /// buckets are negated.
    counts: BTreeMap<(i8, i64), u64>,
}

impl Exponential {
    fn of(point: &ExponentialHistogramDataPoint) -> Self {
        let counts = |sign: i8, buckets: &Option<Buckets>| {
            let buckets = buckets.clone().unwrap_or_default();
            let indices = i64::from(buckets.offset)..;
            let keys = indices.map(move |index| (sign, i64::from(sign) * index));
            keys.zip(buckets.bucket_counts)
        };
        Self {
            scale: point.scale,
            counts: counts(-1, &point.negative)
                .chain([((0, 0), point.zero_count)])
                .chain(counts(1, &point.positive))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }

    /// Reduces the resolution to `scale`; every step merges pairs of buckets.
    fn at_scale(&self, scale: i32) -> Self {
        let steps = self.scale.saturating_sub(scale).clamp(0, 63);
        let mut counts = BTreeMap::new();
        for (&(sign, index), &count) in &self.counts {
            let positive_index = i64::from(sign) * index;
            let merged = i64::from(sign) * (positive_index >> steps);
            let sum: &mut u64 = counts.entry((sign, merged)).or_default();
            *sum = sum.saturating_add(count);
        }
        Self { scale, counts }
    }

    /// Returns the buckets without the observations of `before`; `None` if an observation of `before` is
    /// missing.
    fn since(&self, before: &Self) -> Option<Self> {
        let scale = self.scale.min(before.scale);
        let mut rest = self.at_scale(scale);
        for (key, count) in before.at_scale(scale).counts {
            let left = rest.counts.get_mut(&key)?;
            *left = left.checked_sub(count)?;
        }
        Some(rest)
    }

    fn bins(&self) -> Vec<Bin> {
        let step = (-f64::from(self.scale)).exp2();
        let bound = |index: i64| (index as f64 * step).exp2();
        let bins = self.counts.iter().map(|(&(sign, index), &count)| {
            let (low, high) = match sign {
                0 => (0.0, 0.0),
                1 => (bound(index), bound(index + 1)),
                _ => (-bound(1 - index), -bound(-index)),
            };
            Bin { low, high, count }
        });
        bins.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit_of(bounds: &[f64], counts: &[u64]) -> Distribution {
        Distribution::from(HistogramDataPoint {
            count: counts.iter().copied().fold(0, u64::wrapping_add),
            sum: Some(1.0),
            explicit_bounds: bounds.to_vec(),
            bucket_counts: counts.to_vec(),
            ..HistogramDataPoint::default()
        })
    }

    fn exponential_of(scale: i32, zero_count: u64, offset: i32, counts: &[u64]) -> Distribution {
        Distribution::from(ExponentialHistogramDataPoint {
            count: zero_count + counts.iter().sum::<u64>(),
            sum: Some(1.0),
            scale,
            zero_count,
            positive: Some(Buckets {
                offset,
                bucket_counts: counts.to_vec(),
            }),
            ..ExponentialHistogramDataPoint::default()
        })
    }

    fn quantiles(distribution: &Distribution) -> [Option<f64>; 3] {
        let rounded = |value: f64| (value * 1e12).round() / 1e12;
        let quantiles = distribution.quantiles([0.5, 0.95, 1.0]);
        quantiles.map(|quantile| quantile.map(rounded))
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
    fn negative_buckets_mirror_positive_ones() {
        let positive = exponential_of(1, 0, -3, &[2, 1, 4]);
        let negative = Distribution::from(ExponentialHistogramDataPoint {
            count: 7,
            scale: 1,
            negative: Some(Buckets {
                offset: -3,
                bucket_counts: vec![2, 1, 4],
            }),
            ..ExponentialHistogramDataPoint::default()
        });
        let [low, high] = negative.quantiles([0.0, 0.25]);
        let mirrored = positive.quantiles([1.0, 0.75]);
        assert_eq!([low, high].map(|value| value.map(|value| -value)), mirrored);
        let [coarse] = negative
            .since(&exponential_of(0, 0, 0, &[]))
            .expect("a continuation")
            .quantiles([0.0]);
        assert_eq!(coarse, Some(-1.0), "bucket -1 is from 1/2 to 1 at scale 0");
    }

    #[test]
    fn the_difference_of_two_points_contains_the_observations_between_them() {
        let before = explicit_of(&[1.0, 2.0], &[10, 0, 0]);
        let between = explicit_of(&[1.0, 2.0], &[10, 4, 0])
            .since(&before)
            .expect("a continuation");
        assert_eq!((between.count, between.quantiles([0.5])), (4, [Some(1.5)]));
        assert!(explicit_of(&[1.0, 2.0], &[9, 4, 0]).since(&before).is_none());
        assert!(explicit_of(&[1.0, 3.0], &[10, 4, 0]).since(&before).is_none());

        // The later point has a coarser scale: 4 from 1 to 2 and 2 from 2 to 4. `before` has 3 of the former.
        let before = exponential_of(1, 0, 0, &[2, 1]);
        let between = exponential_of(0, 0, 0, &[4, 2])
            .since(&before)
            .expect("a continuation");
        assert_eq!((between.count, between.quantiles([1.0])), (3, [Some(4.0)]));
        assert!(exponential_of(0, 0, 0, &[2, 2]).since(&before).is_none());
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
            odd.since(&before);
            odd.since(&odd);
            odd.since(&exponential_of(0, 0, 0, &[1]));
            for value in quantiles(&odd).into_iter().flatten() {
                assert!(value.is_finite(), "{odd:?}");
            }
        }
    }
}
