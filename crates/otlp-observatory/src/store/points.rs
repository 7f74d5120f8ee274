//! Stored form of metric points and exemplars. Bucket counts are packed as varints.

use std::mem::size_of;

use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, number_data_point,
};
use prost::{Message as _, encoding};

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

    pub(crate) fn number(point: &NumberDataPoint, received_at: u64) -> Option<Self> {
        let value = match point.value? {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        };
        Some(Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            received_at,
            value: PointValue::Number(value),
        })
    }

    pub(crate) fn histogram(point: &HistogramDataPoint, received_at: u64) -> Self {
        let buckets = HistogramBuckets::Explicit {
            bounds: point.explicit_bounds.as_slice().into(),
            counts: Packed::new(&point.bucket_counts),
        };
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            received_at,
            value: PointValue::Histogram(Box::new(Histogram {
                count: point.count,
                sum: point.sum.unwrap_or(f64::NAN),
                buckets,
            })),
        }
    }

    pub(crate) fn exponential(point: &ExponentialHistogramDataPoint, received_at: u64) -> Self {
        let packed = |buckets: &Option<Buckets>| match buckets {
            Some(buckets) => (buckets.offset, Packed::new(&buckets.bucket_counts)),
            None => (0, Packed::default()),
        };
        let buckets = HistogramBuckets::Exponential {
            scale: point.scale,
            zero: point.zero_count,
            positive: packed(&point.positive),
            negative: packed(&point.negative),
        };
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            received_at,
            value: PointValue::Histogram(Box::new(Histogram {
                count: point.count,
                sum: point.sum.unwrap_or(f64::NAN),
                buckets,
            })),
        }
    }

    pub(crate) fn summary(point: &SummaryDataPoint, received_at: u64) -> Self {
        let quantiles = point
            .quantile_values
            .iter()
            .map(|at| (at.quantile, at.value))
            .collect();
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            received_at,
            value: PointValue::Summary(Box::new(Summary {
                count: point.count,
                sum: point.sum,
                quantiles,
            })),
        }
    }
}

/// Copy of an exemplar.
#[derive(Clone, Debug)]
pub(crate) struct StoredExemplar {
    pub(crate) time: u64,
    pub(crate) value: f64,
    /// The exemplar in OTLP's protobuf encoding.
    pub(crate) encoded: Box<[u8]>,
}

impl StoredExemplar {
    pub(crate) fn new(exemplar: &Exemplar) -> Option<Self> {
        let value = match exemplar.value? {
            exemplar::Value::AsDouble(value) => value,
            exemplar::Value::AsInt(value) => value as f64,
        };
        Some(Self {
            time: exemplar.time_unix_nano,
            value,
            encoded: exemplar.encode_to_vec().into(),
        })
    }

    /// Decodes the exemplar.
    pub(crate) fn decoded(&self) -> Exemplar {
        Exemplar::decode(&*self.encoded).unwrap_or_default()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        memory::heap(self.encoded.len())
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
