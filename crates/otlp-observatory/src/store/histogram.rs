//! Distribution of observations, from explicit or exponential histograms: the difference of two points, and
//! percentiles by linear interpolation within buckets. Bucket counts from senders may be inconsistent.

use std::{collections::BTreeMap, ops::RangeInclusive};

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, exponential_histogram_data_point::Buckets,
};

use super::totals::both;

/// Distribution of observations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    /// Sum of the observations; NaN if unknown.
    pub(crate) sum: f64,
    /// Least observation; `None` if unknown.
    pub(crate) min: Option<f64>,
    /// Greatest observation; `None` if unknown.
    pub(crate) max: Option<f64>,
    buckets: BucketCounts,
}

#[derive(Clone, Debug, PartialEq)]
enum BucketCounts {
    Explicit { bounds: Vec<f64>, counts: Vec<u64> },
    Exponential(Exponential),
}

/// Number of observations between `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bin {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) count: u64,
}

/// Estimated quantile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantile {
    pub(crate) value: f64,
    /// Whether the quantile is greater than `value`, because it is in the bucket without an upper bound.
    pub(crate) is_above: bool,
}

impl From<HistogramDataPoint> for Distribution {
    fn from(point: HistogramDataPoint) -> Self {
        Self {
            count: point.count,
            sum: point.sum.unwrap_or(f64::NAN),
            min: point.min,
            max: point.max,
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
            min: point.min,
            max: point.max,
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
            min: None,
            max: None,
            buckets,
        })
    }

    /// Adds the observations of `other`. Distributions with different bounds have no buckets in common, so that
    /// their sum has none.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        self.min = both(self.min, other.min, f64::min);
        self.max = both(self.max, other.max, f64::max);
        match (&mut self.buckets, &other.buckets) {
            (
                BucketCounts::Explicit { bounds, counts },
                BucketCounts::Explicit {
                    bounds: other_bounds,
                    counts: others,
                },
            ) if bounds == other_bounds && counts.len() == others.len() => {
                for (count, other) in counts.iter_mut().zip(others) {
                    *count = count.saturating_add(*other);
                }
            }
            (BucketCounts::Exponential(buckets), BucketCounts::Exponential(others)) => buckets.merge(others),
            (buckets, _) => {
                *buckets = BucketCounts::Explicit {
                    bounds: Vec::new(),
                    counts: Vec::new(),
                }
            }
        }
    }

    /// Returns the buckets in ascending order; the last explicit one ends at infinity.
    pub(crate) fn bins(&self) -> Vec<Bin> {
        match &self.buckets {
            BucketCounts::Explicit { bounds, counts } => explicit_bins(bounds, counts),
            BucketCounts::Exponential(buckets) => buckets.bins(),
        }
    }

    /// Returns the buckets without gaps: like [`Self::bins`], with the empty exponential buckets between
    /// others. Pairs of exponential buckets are merged until there are at most `max`, which must be 6 or more.
    pub(crate) fn contiguous_bins(&mut self, max: usize) -> Vec<Bin> {
        match &mut self.buckets {
            BucketCounts::Explicit { bounds, counts } => explicit_bins(bounds, counts),
            BucketCounts::Exponential(buckets) => {
                // Indices are below 2^32, so that 33 steps leave two buckets of each sign.
                while buckets.ranges().map(|(_, range)| range.count()).sum::<usize>() > max {
                    *buckets = buckets.with_merged(1, buckets.scale.saturating_sub(1));
                }
                let keys = buckets
                    .ranges()
                    .flat_map(|(sign, range)| range.map(move |index| (sign, index)));
                let count = |key| buckets.counts.get(&key).copied().unwrap_or(0);
                keys.map(|key| buckets.bin(key, count(key))).collect()
            }
        }
    }

    /// Merges exponential buckets to those of `coarser`.
    pub(crate) fn match_scale(&mut self, coarser: &Self) {
        if let (BucketCounts::Exponential(buckets), BucketCounts::Exponential(other)) =
            (&mut self.buckets, &coarser.buckets)
        {
            *buckets = buckets.at_scale(other.scale);
        }
    }

    /// Estimates quantiles between 0 and 1; `None` without observations.
    pub(crate) fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [Option<Quantile>; N] {
        let mut bins = self.bins();
        bins.retain(|bin| bin.count > 0);
        quantiles.map(|quantile| estimate(&bins, quantile))
    }
}

/// Estimates a quantile from bins with observations.
fn estimate(bins: &[Bin], quantile: f64) -> Option<Quantile> {
    let total = bins
        .iter()
        .fold(0_u64, |total, bin| total.saturating_add(bin.count));
    let rank = quantile * total as f64;
    let mut below = 0.0;
    let mut reached = None;
    for bin in bins {
        let count = bin.count as f64;
        let fraction = ((rank - below) / count).clamp(0.0, 1.0);
        let is_above = bin.high == f64::INFINITY;
        let width = if is_above { 0.0 } else { bin.high - bin.low };
        reached = Some(Quantile {
            value: bin.low + width * fraction,
            is_above,
        });
        below += count;
        if below >= rank {
            break;
        }
    }
    reached.filter(|quantile| quantile.value.is_finite())
}

/// Returns the bins between explicit bounds.
///
/// The first bin starts at 0 if its upper bound is positive.
fn explicit_bins(bounds: &[f64], counts: &[u64]) -> Vec<Bin> {
    let lowest = bounds.first().map(|first| first.min(0.0));
    let lows = lowest.into_iter().chain(bounds.iter().copied());
    let highs = bounds.iter().copied().chain([f64::INFINITY]);
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
        self.with_merged(self.scale.saturating_sub(scale).clamp(0, 63), scale)
    }

    /// Merges pairs of buckets `steps` times.
    fn with_merged(&self, steps: i32, scale: i32) -> Self {
        let mut counts = BTreeMap::new();
        for (&(sign, index), &count) in &self.counts {
            let positive_index = i64::from(sign) * index;
            let merged = i64::from(sign) * (positive_index >> steps);
            let sum: &mut u64 = counts.entry((sign, merged)).or_default();
            *sum = sum.saturating_add(count);
        }
        Self { scale, counts }
    }

    /// Adds the observations of `other`, at the coarser scale of both.
    fn merge(&mut self, other: &Self) {
        let scale = self.scale.min(other.scale);
        *self = self.at_scale(scale);
        for (key, count) in other.at_scale(scale).counts {
            let sum = self.counts.entry(key).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Returns the range of the indices with observations of each sign.
    fn ranges(&self) -> impl Iterator<Item = (i8, RangeInclusive<i64>)> {
        [-1, 0, 1].into_iter().filter_map(|sign| {
            let mut keys = self
                .counts
                .range((sign, i64::MIN)..=(sign, i64::MAX))
                .map(|(key, _)| key.1);
            let first = keys.next()?;
            Some((sign, first..=keys.next_back().unwrap_or(first)))
        })
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
        let bins = self.counts.iter().map(|(key, count)| self.bin(*key, *count));
        bins.collect()
    }

    fn bin(&self, (sign, index): (i8, i64), count: u64) -> Bin {
        let step = (-f64::from(self.scale)).exp2();
        let bound = |index: i64| (index as f64 * step).exp2();
        let (low, high) = match sign {
            0 => (0.0, 0.0),
            1 => (bound(index), bound(index + 1)),
            _ => (-bound(1 - index), -bound(-index)),
        };
        Bin { low, high, count }
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
        quantiles.map(|quantile| quantile.map(|quantile| rounded(quantile.value)))
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
    fn percentiles_beyond_the_last_bound_are_marked() {
        let is_above = |distribution: Distribution| {
            let quantiles = distribution.quantiles([0.5, 0.95]);
            quantiles.map(|quantile| quantile.is_some_and(|quantile| quantile.is_above))
        };
        assert_eq!(is_above(explicit_of(&[1.0, 2.5], &[6, 0, 4])), [false, true]);
        assert_eq!(is_above(explicit_of(&[1.0, 2.5], &[6, 4, 0])), [false, false]);
        // Some senders add the infinite bound themselves.
        let infinite = explicit_of(&[2.5, f64::INFINITY], &[0, 4, 0]);
        assert_eq!(quantiles(&infinite), [Some(2.5); 3]);
        assert_eq!(is_above(infinite), [true, true]);
    }

    #[test]
    fn merged_distributions_contain_all_observations() {
        let mut merged = explicit_of(&[1.0, 2.0], &[10, 0, 0]);
        merged.merge(&explicit_of(&[1.0, 2.0], &[0, 10, 0]));
        assert_eq!(
            merged,
            Distribution {
                sum: 2.0,
                ..explicit_of(&[1.0, 2.0], &[10, 10, 0])
            }
        );
        merged.merge(&explicit_of(&[5.0], &[1, 0]));
        assert_eq!((merged.count, merged.bins()), (21, Vec::new()));

        // 3 of √2 buckets from 1 to 2, and 2 from 2 to 4.
        let mut merged = exponential_of(1, 0, 0, &[2, 1]);
        merged.merge(&exponential_of(0, 1, 1, &[2]));
        assert_eq!(
            merged,
            Distribution {
                sum: 2.0,
                ..exponential_of(0, 1, 0, &[3, 2])
            }
        );
        // Far apart: the buckets between them are listed, merged to a few.
        merged.merge(&exponential_of(0, 0, 50, &[7]));
        let bins = merged.contiguous_bins(10);
        let counts: Vec<_> = bins.iter().map(|bin| bin.count).collect();
        assert_eq!(counts, [1, 5, 0, 0, 0, 0, 0, 7]);
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
        let negated = |quantile: Quantile| Quantile {
            value: -quantile.value,
            ..quantile
        };
        assert_eq!([low, high].map(|quantile| quantile.map(negated)), mirrored);
        let [coarse] = negative
            .since(&exponential_of(0, 0, 0, &[]))
            .expect("a continuation")
            .quantiles([0.0]);
        let coarse = coarse.map(|quantile| quantile.value);
        assert_eq!(coarse, Some(-1.0), "bucket -1 is from 1/2 to 1 at scale 0");
    }

    #[test]
    fn the_difference_of_two_points_contains_the_observations_between_them() {
        let before = explicit_of(&[1.0, 2.0], &[10, 0, 0]);
        let between = explicit_of(&[1.0, 2.0], &[10, 4, 0])
            .since(&before)
            .expect("a continuation");
        assert_eq!((between.count, quantiles(&between)[0]), (4, Some(1.5)));
        assert!(explicit_of(&[1.0, 2.0], &[9, 4, 0]).since(&before).is_none());
        assert!(explicit_of(&[1.0, 3.0], &[10, 4, 0]).since(&before).is_none());

        // The later point has a coarser scale: 4 from 1 to 2 and 2 from 2 to 4. `before` has 3 of the former.
        let before = exponential_of(1, 0, 0, &[2, 1]);
        let between = exponential_of(0, 0, 0, &[4, 2])
            .since(&before)
            .expect("a continuation");
        assert_eq!((between.count, quantiles(&between)[2]), (3, Some(4.0)));
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
            assert!(odd.clone().contiguous_bins(40).len() <= 40);
            odd.clone().merge(&exponential_of(0, 0, 0, &[1]));
            for value in quantiles(&odd).into_iter().flatten() {
                assert!(value.is_finite(), "{odd:?}");
            }
        }
    }
}
