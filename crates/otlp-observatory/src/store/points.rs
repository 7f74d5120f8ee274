//! Points of metrics as they are kept: numbers as they came, bucket counts packed, exemplars beside them.

use std::mem::size_of;

use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, number_data_point,
};
use prost::{Message as _, encoding};

use super::memory;

/// A measurement, of one series at one time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// As the sender said; `start` is 0 when it did not.
    pub(crate) time: u64,
    pub(crate) start: u64,
    /// When it came.
    pub(crate) came: u64,
    pub(crate) value: PointValue,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PointValue {
    Number(f64),
    Histogram(Box<Histogram>),
    Summary(Box<Summary>),
}

/// A histogram of either kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    pub(crate) count: u64,
    /// NaN when the sender did not say it.
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
        positive: (i32, Packed),
        negative: (i32, Packed),
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    /// Quantiles and their values.
    pub(crate) quantiles: Box<[(f64, f64)]>,
}

/// Counts as varints: most are small.
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

    /// The counts again.
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
    /// What it takes beyond its own size.
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

    pub(crate) fn number(point: &NumberDataPoint, came: u64) -> Option<Self> {
        let value = match point.value? {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        };
        Some(Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            came,
            value: PointValue::Number(value),
        })
    }

    pub(crate) fn histogram(point: &HistogramDataPoint, came: u64) -> Self {
        let buckets = HistogramBuckets::Explicit {
            bounds: point.explicit_bounds.as_slice().into(),
            counts: Packed::new(&point.bucket_counts),
        };
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            came,
            value: PointValue::Histogram(Box::new(Histogram {
                count: point.count,
                sum: point.sum.unwrap_or(f64::NAN),
                buckets,
            })),
        }
    }

    pub(crate) fn exponential(point: &ExponentialHistogramDataPoint, came: u64) -> Self {
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
            came,
            value: PointValue::Histogram(Box::new(Histogram {
                count: point.count,
                sum: point.sum.unwrap_or(f64::NAN),
                buckets,
            })),
        }
    }

    pub(crate) fn summary(point: &SummaryDataPoint, came: u64) -> Self {
        let quantiles = point
            .quantile_values
            .iter()
            .map(|at| (at.quantile, at.value))
            .collect();
        Self {
            time: point.time_unix_nano,
            start: point.start_time_unix_nano,
            came,
            value: PointValue::Summary(Box::new(Summary {
                count: point.count,
                sum: point.sum,
                quantiles,
            })),
        }
    }
}

/// A measurement with the span it was taken in, in OTLP's protobuf.
#[derive(Clone, Debug)]
pub(crate) struct KeptExemplar {
    pub(crate) time: u64,
    pub(crate) value: f64,
    pub(crate) encoded: Box<[u8]>,
}

impl KeptExemplar {
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

    /// The exemplar as it came.
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
    fn counts_come_back_from_packing() {
        let counts = [0, 1, 127, 128, 300, u64::MAX];
        assert_eq!(Packed::new(&counts).iter().collect::<Vec<_>>(), counts);
        assert_eq!(Packed::default().iter().count(), 0);
    }
}
