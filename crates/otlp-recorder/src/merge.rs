//! Merges points of a metric that have the same attributes after redaction. Attributes identify a point, so
//! receivers would reject or overwrite a second one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, metric::Data,
};

use crate::points::identity;

/// Maximum number of buckets of each sign in a merged exponential histogram, the default of the specification.
const MAX_BUCKETS: i64 = 160;

/// Merges the points of `metric` that have the same attributes.
pub(crate) fn merge_points(metric: &mut Metric) {
    match &mut metric.data {
        Some(Data::Gauge(gauge)) => merge(&mut gauge.data_points, latest),
        Some(Data::Sum(sum)) => merge(&mut sum.data_points, total),
        Some(Data::Histogram(histogram)) => merge(&mut histogram.data_points, histograms),
        Some(Data::ExponentialHistogram(histogram)) => {
            merge(&mut histogram.data_points, exponential_histograms);
        }
        Some(Data::Summary(_)) | None => {}
    }
}

trait Point {
    fn attributes(&mut self) -> &mut Vec<KeyValue>;
}

macro_rules! impl_point {
    ($($point:ty),+) => {$(
        impl Point for $point {
            fn attributes(&mut self) -> &mut Vec<KeyValue> {
                &mut self.attributes
            }
        }
    )+};
}

impl_point!(NumberDataPoint, HistogramDataPoint, ExponentialHistogramDataPoint);

fn merge<P: Point>(points: &mut Vec<P>, add: fn(&mut P, P)) {
    let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut merged: Vec<P> = Vec::with_capacity(points.len());
    for mut point in mem::take(points) {
        deduplicate(point.attributes());
        match known.entry(identity(point.attributes())) {
            Entry::Occupied(entry) => add(&mut merged[*entry.get()], point),
            Entry::Vacant(entry) => {
                entry.insert(merged.len());
                merged.push(point);
            }
        }
    }
    *points = merged;
}

/// Keeps the last value of each key.
pub(crate) fn deduplicate(attributes: &mut Vec<KeyValue>) {
    let mut index = 0;
    while index < attributes.len() {
        let (key, later) = (&attributes[index].key, &attributes[index + 1..]);
        if later.iter().any(|other| other.key == *key) {
            attributes.remove(index);
        } else {
            index += 1;
        }
    }
}

/// Keeps the value measured last.
fn latest(into: &mut NumberDataPoint, mut other: NumberDataPoint) {
    if other.time_unix_nano >= into.time_unix_nano {
        mem::swap(into, &mut other);
    }
    into.start_time_unix_nano = into.start_time_unix_nano.min(other.start_time_unix_nano);
    into.exemplars.append(&mut other.exemplars);
}

fn total(into: &mut NumberDataPoint, mut other: NumberDataPoint) {
    into.value = match (into.value, other.value) {
        (Some(Value::AsInt(one)), Some(Value::AsInt(two))) => Some(Value::AsInt(one.saturating_add(two))),
        (Some(one), Some(two)) => Some(Value::AsDouble(number(one) + number(two))),
        (one, two) => one.or(two),
    };
    into.start_time_unix_nano = into.start_time_unix_nano.min(other.start_time_unix_nano);
    into.time_unix_nano = into.time_unix_nano.max(other.time_unix_nano);
    into.exemplars.append(&mut other.exemplars);
}

fn number(value: Value) -> f64 {
    match value {
        Value::AsInt(number) => number as f64,
        Value::AsDouble(number) => number,
    }
}

fn histograms(into: &mut HistogramDataPoint, mut other: HistogramDataPoint) {
    if into.explicit_bounds == other.explicit_bounds {
        for (count, more) in into.bucket_counts.iter_mut().zip(&other.bucket_counts) {
            *count += more;
        }
    } else {
        // Without common bounds, the count and the sum remain.
        into.explicit_bounds.clear();
        into.bucket_counts.clear();
    }
    into.count += other.count;
    into.sum = both(into.sum, other.sum, |one, two| one + two);
    into.min = both(into.min, other.min, f64::min);
    into.max = both(into.max, other.max, f64::max);
    into.start_time_unix_nano = into.start_time_unix_nano.min(other.start_time_unix_nano);
    into.time_unix_nano = into.time_unix_nano.max(other.time_unix_nano);
    into.exemplars.append(&mut other.exemplars);
}

/// Combines two values; the result is unknown unless both are known.
fn both(one: Option<f64>, two: Option<f64>, combine: fn(f64, f64) -> f64) -> Option<f64> {
    Some(combine(one?, two?))
}

fn exponential_histograms(
    into: &mut ExponentialHistogramDataPoint,
    mut other: ExponentialHistogramDataPoint,
) {
    let scale = into.scale.min(other.scale);
    let [mut scaled, mut others] = [&mut *into, &mut other].map(|point| {
        let shift = point.scale - scale;
        [point.positive.take(), point.negative.take()]
            .map(|buckets| coarser(&buckets.unwrap_or_default(), shift))
    });
    into.scale = scale;
    while (0..2).any(|sign| span(&scaled[sign], &others[sign]) > MAX_BUCKETS) {
        into.scale -= 1;
        scaled = scaled.map(|buckets| coarser(&buckets, 1));
        others = others.map(|buckets| coarser(&buckets, 1));
    }
    let [positive, negative] = [0, 1].map(|sign| sum(&scaled[sign], &others[sign]));
    (into.positive, into.negative) = (Some(positive), Some(negative));
    into.count += other.count;
    into.zero_count += other.zero_count;
    into.zero_threshold = into.zero_threshold.max(other.zero_threshold);
    into.sum = both(into.sum, other.sum, |one, two| one + two);
    into.min = both(into.min, other.min, f64::min);
    into.max = both(into.max, other.max, f64::max);
    into.start_time_unix_nano = into.start_time_unix_nano.min(other.start_time_unix_nano);
    into.time_unix_nano = into.time_unix_nano.max(other.time_unix_nano);
    into.exemplars.append(&mut other.exemplars);
}

/// Returns the buckets at a scale that is lower by `shift`, each of which covers `2^shift` buckets.
fn coarser(buckets: &Buckets, shift: i32) -> Buckets {
    let shift = u32::try_from(shift).unwrap_or_default();
    let index = |position: usize| {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        (i64::from(buckets.offset) + position)
            .checked_shr(shift)
            .unwrap_or(-1)
    };
    let first = index(0);
    let mut counts: Vec<u64> = Vec::new();
    for (position, count) in buckets.bucket_counts.iter().enumerate() {
        let at = usize::try_from(index(position) - first).unwrap_or_default();
        counts.resize(counts.len().max(at + 1), 0);
        counts[at] += count;
    }
    Buckets {
        offset: i32::try_from(first).unwrap_or(buckets.offset),
        bucket_counts: counts,
    }
}

/// Returns the range that two lists of buckets cover: the first bucket, and the one after the last.
fn range(one: &Buckets, two: &Buckets) -> (i64, i64) {
    let filled = [one, two]
        .into_iter()
        .filter(|buckets| !buckets.bucket_counts.is_empty());
    let ends = filled.map(|buckets| {
        let length = i64::try_from(buckets.bucket_counts.len()).unwrap_or(i64::MAX);
        (i64::from(buckets.offset), i64::from(buckets.offset) + length)
    });
    ends.reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)))
        .unwrap_or_default()
}

fn span(one: &Buckets, two: &Buckets) -> i64 {
    let (first, end) = range(one, two);
    end - first
}

fn sum(one: &Buckets, two: &Buckets) -> Buckets {
    let (first, end) = range(one, two);
    let mut counts = vec![0; usize::try_from(end - first).unwrap_or_default()];
    for buckets in [one, two] {
        for (position, count) in (i64::from(buckets.offset) - first..).zip(&buckets.bucket_counts) {
            if let Some(sum) = usize::try_from(position)
                .ok()
                .and_then(|position| counts.get_mut(position))
            {
                *sum += count;
            }
        }
    }
    Buckets {
        offset: i32::try_from(first).unwrap_or_default(),
        bucket_counts: counts,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogram, Gauge, Histogram, Sum};

    use super::*;

    fn attribute(key: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            ..KeyValue::default()
        }
    }

    fn number(value: i64, time: u64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: vec![attribute("who")],
            start_time_unix_nano: time,
            time_unix_nano: time,
            value: Some(Value::AsInt(value)),
            ..NumberDataPoint::default()
        }
    }

    fn merged(data: Data) -> Data {
        let mut metric = Metric {
            data: Some(data),
            ..Metric::default()
        };
        merge_points(&mut metric);
        metric.data.unwrap()
    }

    #[test]
    fn sums_are_added_and_the_last_value_of_a_gauge_is_kept() {
        let data_points = vec![number(1, 5), number(2, 9), number(4, 7)];
        let sum = Sum {
            data_points: data_points.clone(),
            ..Sum::default()
        };
        let Data::Sum(sum) = merged(Data::Sum(sum)) else {
            unreachable!()
        };
        let mut expected = number(7, 5);
        expected.time_unix_nano = 9;
        assert_eq!(sum.data_points, [expected]);
        let Data::Gauge(gauge) = merged(Data::Gauge(Gauge { data_points })) else {
            unreachable!()
        };
        let mut expected = number(2, 9);
        expected.start_time_unix_nano = 5;
        assert_eq!(gauge.data_points, [expected]);
    }

    #[test]
    fn only_points_with_the_same_attributes_are_merged_whatever_their_order() {
        let mut points = vec![number(1, 1), number(2, 1), number(3, 1), number(4, 1)];
        points[1].attributes.insert(0, attribute("other"));
        points[2].attributes.push(attribute("other"));
        // A repeated key counts once.
        points[3].attributes.push(attribute("who"));
        let sum = Sum {
            data_points: points,
            ..Sum::default()
        };
        let Data::Sum(sum) = merged(Data::Sum(sum)) else {
            unreachable!()
        };
        let values: Vec<_> = sum.data_points.iter().map(|point| point.value).collect();
        assert_eq!(values, [Some(Value::AsInt(5)), Some(Value::AsInt(5))]);
    }

    #[test]
    fn histograms_are_added_bucket_by_bucket() {
        let point = |counts: [u64; 3], sum, min, max| HistogramDataPoint {
            count: counts.iter().sum(),
            sum: Some(sum),
            min: Some(min),
            max: Some(max),
            bucket_counts: counts.to_vec(),
            explicit_bounds: vec![1.0, 2.0],
            ..HistogramDataPoint::default()
        };
        let histogram = Histogram {
            data_points: vec![point([1, 2, 3], 9.0, 0.5, 4.0), point([0, 1, 0], 1.5, 1.5, 1.5)],
            ..Histogram::default()
        };
        let Data::Histogram(histogram) = merged(Data::Histogram(histogram)) else {
            unreachable!()
        };
        assert_eq!(histogram.data_points, [point([1, 3, 3], 10.5, 0.5, 4.0)]);
    }

    #[test]
    fn exponential_histograms_are_added_at_a_common_scale_with_bounded_buckets() {
        let point = |scale, offset, counts: &[u64]| ExponentialHistogramDataPoint {
            scale,
            count: counts.iter().sum(),
            positive: Some(Buckets {
                offset,
                bucket_counts: counts.to_vec(),
            }),
            ..ExponentialHistogramDataPoint::default()
        };
        let of = |data_points| {
            let histogram = ExponentialHistogram {
                data_points,
                ..ExponentialHistogram::default()
            };
            let Data::ExponentialHistogram(mut histogram) = merged(Data::ExponentialHistogram(histogram))
            else {
                unreachable!()
            };
            assert_eq!(histogram.data_points.len(), 1);
            let point = histogram.data_points.remove(0);
            let positive = point.positive.unwrap();
            (point.scale, positive.offset, positive.bucket_counts)
        };
        // At scale 0, bucket -3 contains buckets -6 and -5 of scale 1.
        let added = of(vec![point(1, -5, &[1, 2, 3]), point(0, -1, &[10])]);
        assert_eq!(added, (0, -3, vec![1, 5, 10]));
        let (scale, _, counts) = of(vec![point(20, -40_000_000, &[7]), point(20, 40_000_000, &[8, 1])]);
        assert!(counts.len() <= 160 && scale < 20, "{scale} {counts:?}");
        assert_eq!(counts.iter().sum::<u64>(), 16);
    }
}
