//! Stored form of metric points. Bucket counts are packed as varints.

use std::mem::size_of;

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
    exponential_histogram_data_point::Buckets, number_data_point,
};
use prost::encoding;

use super::memory;

/// Measurement of a series at one time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// Timestamp set by the sender.
    pub(crate) time: u64,
    /// Start of the aggregation, set by the sender; 0 if unset.
    pub(crate) start: u64,
    /// Time of arrival.
    pub(crate) received_at: u64,
    pub(crate) value: PointValue,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PointValue {
    Number(f64),
    Histogram(Box<Histogram>),
    Summary(Box<Summary>),
}

/// Histogram with explicit or exponential buckets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    pub(crate) count: u64,
    /// Sum of the observations; NaN if unset.
    pub(crate) sum: f64,
    pub(crate) buckets: HistogramBuckets,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum HistogramBuckets {
    Explicit {
        bounds: Box<[f64]>,
        counts: Packed,
    },
    Exponential {
        scale: i32,
        zero: u64,
        /// Offset and counts.
        positive: (i32, Packed),
        negative: (i32, Packed),
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    /// Pairs of quantile and value.
    pub(crate) quantiles: Box<[(f64, f64)]>,
}

/// Bucket counts encoded as varints, since most are small.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    fn new(counts: &[u64]) -> Self {
        let length = counts
            .iter()
            .map(|count| encoding::encoded_len_varint(*count))
            .sum();
        let mut bytes = Vec::with_capacity(length);
        for count in counts {
            encoding::encode_varint(*count, &mut bytes);
        }
        Self(bytes.into())
    }

    /// Decodes the counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            encoding::decode_varint(&mut rest).ok()
        })
    }
}

impl Point {
    /// Allocated bytes, without `size_of::<Self>()`.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.value {
            PointValue::Number(_) => 0,
            PointValue::Histogram(histogram) => {
                let buckets = match &histogram.buckets {
                    HistogramBuckets::Explicit { bounds, counts } => {
                        memory::heap(bounds.len() * size_of::<f64>()) + memory::heap(counts.0.len())
                    }
                    HistogramBuckets::Exponential {
                        positive, negative, ..
                    } => memory::heap(positive.1.0.len()) + memory::heap(negative.1.0.len()),
                };
                memory::heap(size_of::<Histogram>()) + buckets
            }
            PointValue::Summary(summary) => {
                memory::heap(size_of::<Summary>())
                    + memory::heap(summary.quantiles.len() * size_of::<(f64, f64)>())
            }
        }
    }
}

impl PointValue {
    pub(crate) fn number(point: &NumberDataPoint) -> Option<Self> {
        Some(Self::Number(match point.value? {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        }))
    }

    pub(crate) fn histogram(point: &HistogramDataPoint) -> Self {
        Self::Histogram(Box::new(Histogram {
            count: point.count,
            sum: point.sum.unwrap_or(f64::NAN),
            buckets: HistogramBuckets::Explicit {
                bounds: point.explicit_bounds.as_slice().into(),
                counts: Packed::new(&point.bucket_counts),
            },
        }))
    }

    pub(crate) fn exponential(point: &ExponentialHistogramDataPoint) -> Self {
        let packed = |buckets: &Option<Buckets>| match buckets {
            Some(buckets) => (buckets.offset, Packed::new(&buckets.bucket_counts)),
            None => (0, Packed::default()),
        };
        Self::Histogram(Box::new(Histogram {
            count: point.count,
            sum: point.sum.unwrap_or(f64::NAN),
            buckets: HistogramBuckets::Exponential {
                scale: point.scale,
                zero: point.zero_count,
                positive: packed(&point.positive),
                negative: packed(&point.negative),
            },
        }))
    }

    pub(crate) fn summary(point: &SummaryDataPoint) -> Self {
        let quantiles = point.quantile_values.iter();
        Self::Summary(Box::new(Summary {
            count: point.count,
            sum: point.sum,
            quantiles: quantiles.map(|at| (at.quantile, at.value)).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_counts_round_trip() {
        let counts = [0, 1, 127, 128, 300, u64::MAX];
        assert_eq!(Packed::new(&counts).iter().collect::<Vec<_>>(), counts);
        assert_eq!(Packed::default().iter().count(), 0);
    }
}
