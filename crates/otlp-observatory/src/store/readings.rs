//! Computes readings from the points of a series: rates, and the distribution of observations since the
//! previous point. Cumulative points are compared with their predecessors; delta points are used as they are,
//! and their values are added up. Both have the same results, except for the least and the greatest
//! observation, which only delta points contain.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, SummaryDataPoint,
};
use serde::Serialize;

use super::{
    UnixNano,
    histogram::Distribution,
    instrument::InstrumentType,
    number::Number,
    points::{Point, PointValue},
    totals::mean,
};

/// Values of a chart at one point in time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Reading {
    pub(crate) time_unix_nano: UnixNano,
    #[serde(flatten)]
    pub(crate) value: ReadingValue,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum ReadingValue {
    Counter {
        rate: Option<f64>,
        value: Number,
    },
    Value {
        value: Number,
    },
    Histogram {
        rate: Option<f64>,
        p50: Option<f64>,
        p95: Option<f64>,
        p99: Option<f64>,
        /// Percentiles that are greater than the stated value, the last bound of the histogram.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        above: Vec<&'static str>,
        count: Number,
        sum: Option<f64>,
        mean: Option<f64>,
        min: Option<f64>,
        max: Option<f64>,
    },
    Summary {
        count: Number,
        sum: f64,
        mean: Option<f64>,
        quantiles: BTreeMap<String, f64>,
    },
}

/// Interpreted point of a series. In contrast to a [`Reading`], samples of several series can be merged.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) time: u64,
    pub(crate) value: SampleValue,
}

#[derive(Clone, Debug)]
pub(crate) enum SampleValue {
    Counter {
        rate: Option<f64>,
        value: Number,
    },
    Value(Number),
    Histogram {
        rate: Option<f64>,
        observed: Distribution,
    },
    Summary(SummaryDataPoint),
}

impl From<Sample> for Reading {
    fn from(sample: Sample) -> Self {
        let value = match sample.value {
            SampleValue::Counter { rate, value } => ReadingValue::Counter { rate, value },
            SampleValue::Value(value) => ReadingValue::Value { value },
            SampleValue::Histogram { rate, observed } => {
                let percentiles = observed.quantiles([0.50, 0.95, 0.99]);
                let named = ["p50", "p95", "p99"].into_iter().zip(percentiles);
                let above = named.filter(|(_, quantile)| quantile.is_some_and(|quantile| quantile.is_above));
                let [p50, p95, p99] = percentiles.map(|quantile| quantile.map(|quantile| quantile.value));
                ReadingValue::Histogram {
                    rate,
                    p50,
                    p95,
                    p99,
                    above: above.map(|(name, _)| name).collect(),
                    count: observed.count.into(),
                    sum: Some(observed.sum).filter(|sum| sum.is_finite()),
                    mean: mean(observed.sum, observed.count as f64),
                    min: observed.min,
                    max: observed.max,
                }
            }
            SampleValue::Summary(summary) => {
                let quantiles = summary.quantile_values.iter();
                ReadingValue::Summary {
                    count: summary.count.into(),
                    sum: summary.sum,
                    mean: mean(summary.sum, summary.count as f64),
                    quantiles: quantiles.map(|at| (at.quantile.to_string(), at.value)).collect(),
                }
            }
        };
        Self {
            time_unix_nano: UnixNano(sample.time),
            value,
        }
    }
}

/// Properties of a series that determine how its points are interpreted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) instrument_type: InstrumentType,
    pub(crate) is_delta: bool,
    /// Whether points were evicted, so that the predecessor of the first point is unknown.
    pub(crate) is_truncated: bool,
    /// Earliest start of a series that was observed from its start, in nanoseconds since 1970.
    pub(crate) observed_since: u64,
    /// Sum of the evicted points of a delta series.
    pub(crate) evicted: Number,
}

impl Reader {
    /// Interprets `points`, which must be in order of arrival.
    pub(crate) fn read(self, points: &[Point]) -> Vec<Sample> {
        let mut total = self.evicted;
        let mut distribution = None;
        let before = std::iter::once(None).chain(points.iter().map(Some));
        let samples = points.iter().zip(before).filter_map(|(point, before)| {
            Some(Sample {
                time: point.time,
                value: self.value(before, point, &mut total, &mut distribution)?,
            })
        });
        samples.collect()
    }

    /// Interprets `point`, and adds it to the `total` of a delta series. `distribution` is that of the previous
    /// point of a histogram, and is replaced by that of `point`.
    fn value(
        self,
        before: Option<&Point>,
        point: &Point,
        total: &mut Number,
        distribution: &mut Option<Distribution>,
    ) -> Option<SampleValue> {
        match self.instrument_type {
            InstrumentType::Counter | InstrumentType::UpDownCounter | InstrumentType::Gauge => {
                let value = point.value.as_number()?;
                *total = if self.is_delta { total.plus(value) } else { value };
                if self.instrument_type != InstrumentType::Counter {
                    return Some(SampleValue::Value(*total));
                }
                let rate = self.rate(before, point, value);
                Some(SampleValue::Counter { rate, value: *total })
            }
            InstrumentType::Summary => Some(SampleValue::Summary(decode(point)?)),
            InstrumentType::Histogram | InstrumentType::ExponentialHistogram => {
                let base = std::mem::replace(distribution, self.distribution(point));
                self.histogram(before, point, base.as_ref(), distribution.clone()?)
            }
        }
    }

    fn rate(self, before: Option<&Point>, point: &Point, value: Number) -> Option<f64> {
        let (change, seconds) = self.change(before, point, value, |value, base| {
            let change = value.minus(base.value.as_number()?);
            Some(change).filter(|change| change.to_f64() >= 0.0)
        })?;
        Some(change.to_f64() / seconds?)
    }

    fn histogram(
        self,
        before: Option<&Point>,
        point: &Point,
        base: Option<&Distribution>,
        total: Distribution,
    ) -> Option<SampleValue> {
        let change_since = |total: &Distribution, _: &Point| total.since(base?);
        let (observed, seconds) = self.change(before, point, total, change_since)?;
        Some(SampleValue::Histogram {
            rate: seconds.map(|seconds| observed.count as f64 / seconds),
            observed,
        })
    }

    /// Returns the change at `point` and the seconds it covers.
    ///
    /// `change_since` returns the change of the total since another point, or `None` if the series was reset.
    fn change<T>(
        self,
        before: Option<&Point>,
        point: &Point,
        total: T,
        change_since: impl FnOnce(&T, &Point) -> Option<T>,
    ) -> Option<(T, Option<f64>)> {
        let base = before.filter(|before| !self.is_delta && !is_restarted(before, point));
        if let Some(base) = base
            && let Some(change) = change_since(&total, base)
        {
            return Some((change, seconds(base.time, point.time)));
        }
        // The first point of a series that started before its observation is only the base of the next point.
        let is_change = self.is_delta || before.is_some() || self.is_observed_from_start(point);
        is_change.then(|| (total, since_start(before, point)))
    }

    fn distribution(self, point: &Point) -> Option<Distribution> {
        if self.instrument_type == InstrumentType::ExponentialHistogram {
            return Some(decode::<ExponentialHistogramDataPoint>(point)?.into());
        }
        Some(decode::<HistogramDataPoint>(point)?.into())
    }

    /// Whether the series was observed from the start of `point`, its first stored point.
    fn is_observed_from_start(self, point: &Point) -> bool {
        !self.is_truncated && point.start >= self.observed_since && point.start != 0
    }
}

/// Decodes a point that is not a number.
fn decode<T: prost::Message + Default>(point: &Point) -> Option<T> {
    match &point.value {
        PointValue::Encoded(encoded) => T::decode(&**encoded).ok(),
        PointValue::Number(_) => None,
    }
}

/// Whether the sender restarted the aggregation after `before`.
fn is_restarted(before: &Point, point: &Point) -> bool {
    point.start != before.start && point.start >= before.time
}

/// Returns the seconds since the start of `point`, or since the previous point if the start is unset.
fn since_start(before: Option<&Point>, point: &Point) -> Option<f64> {
    let start = Some(point.start).filter(|start| *start != 0);
    seconds(start.or(before.map(|before| before.time))?, point.time)
}

/// Returns the seconds between two timestamps; `None` unless `to` is after `from`.
fn seconds(from: u64, to: u64) -> Option<f64> {
    let passed = to.checked_sub(from).filter(|passed| *passed > 0)?;
    Some(passed as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn reader(instrument_type: InstrumentType, is_delta: bool) -> Reader {
        Reader {
            instrument_type,
            is_delta,
            is_truncated: false,
            observed_since: 50 * SECOND,
            evicted: Number::ZERO,
        }
    }

    /// Returns a point; `start` and `time` are in seconds.
    fn point(start: u64, time: u64, value: PointValue) -> Point {
        Point {
            time: time * SECOND,
            start: start * SECOND,
            received_at: 0,
            value,
        }
    }

    fn sum(start: u64, time: u64, value: f64) -> Point {
        point(start, time, PointValue::Number(value))
    }

    fn histogram(start: u64, time: u64, counts: [u64; 3]) -> Point {
        let value = PointValue::encode(&HistogramDataPoint {
            count: counts.iter().sum(),
            sum: Some(counts.iter().sum::<u64>() as f64),
            explicit_bounds: vec![1.0, 2.0],
            bucket_counts: counts.to_vec(),
            ..HistogramDataPoint::default()
        });
        point(start, time, value)
    }

    fn readings(reader: Reader, points: &[Point]) -> Vec<Reading> {
        reader.read(points).into_iter().map(Reading::from).collect()
    }

    fn rates(reader: Reader, points: &[Point]) -> Vec<Option<f64>> {
        let rate = |reading: Reading| match reading.value {
            ReadingValue::Counter { rate, .. } | ReadingValue::Histogram { rate, .. } => rate,
            other => panic!("{other:?}"),
        };
        readings(reader, points).into_iter().map(rate).collect()
    }

    #[test]
    fn cumulative_and_delta_yield_the_same_rates() {
        let cumulative = [sum(100, 110, 20.0), sum(100, 120, 20.0), sum(100, 140, 60.0)];
        let delta = [sum(100, 110, 20.0), sum(110, 120, 0.0), sum(120, 140, 40.0)];
        let expected = [Some(2.0), Some(0.0), Some(2.0)];
        assert_eq!(
            rates(reader(InstrumentType::Counter, false), &cumulative),
            expected
        );
        assert_eq!(rates(reader(InstrumentType::Counter, true), &delta), expected);
    }

    #[test]
    fn cumulative_and_delta_yield_the_same_percentiles() {
        let cumulative = [
            histogram(100, 110, [10, 0, 0]),
            histogram(100, 120, [10, 10, 0]),
            histogram(100, 130, [10, 10, 0]),
        ];
        let delta = [
            histogram(100, 110, [10, 0, 0]),
            histogram(110, 120, [0, 10, 0]),
            histogram(120, 130, [0, 0, 0]),
        ];
        let from_delta = readings(reader(InstrumentType::Histogram, true), &delta);
        let readings = readings(reader(InstrumentType::Histogram, false), &cumulative);
        assert_eq!(readings, from_delta);
        let expected = |rate, p50, p95, p99, count, sum| ReadingValue::Histogram {
            rate: Some(rate),
            p50,
            p95,
            p99,
            above: Vec::new(),
            count: Number::Integer(count),
            sum: Some(sum),
            mean: (count > 0).then_some(1.0),
            min: None,
            max: None,
        };
        assert_eq!(
            readings[0].value,
            expected(1.0, Some(0.5), Some(0.95), Some(0.99), 10, 10.0)
        );
        assert_eq!(
            readings[1].value,
            expected(1.0, Some(1.5), Some(1.95), Some(1.99), 10, 10.0)
        );
        assert_eq!(readings[2].value, expected(0.0, None, None, None, 0, 0.0));
    }

    #[test]
    fn a_restarted_counter_counts_from_its_restart() {
        // The restart is detected by the start time, even though the value is greater, and by the value alone.
        let new_start = [sum(100, 110, 20.0), sum(115, 120, 25.0)];
        assert_eq!(
            rates(reader(InstrumentType::Counter, false), &new_start),
            [Some(2.0), Some(5.0)]
        );
        let lower_value = [sum(100, 110, 20.0), sum(0, 120, 10.0)];
        assert_eq!(
            rates(reader(InstrumentType::Counter, false), &lower_value),
            [Some(2.0), Some(1.0)]
        );
        let histograms = [histogram(100, 110, [10, 0, 0]), histogram(115, 120, [5, 0, 0])];
        assert_eq!(
            rates(reader(InstrumentType::Histogram, false), &histograms),
            [Some(1.0), Some(1.0)]
        );
    }

    #[test]
    fn counts_from_before_the_observation_yield_no_rate() {
        let points = [sum(10, 110, 1_000.0), sum(10, 120, 1_010.0)];
        assert_eq!(
            rates(reader(InstrumentType::Counter, false), &points),
            [None, Some(1.0)]
        );
        let points = [histogram(10, 110, [100, 0, 0]), histogram(10, 120, [110, 0, 0])];
        assert_eq!(
            rates(reader(InstrumentType::Histogram, false), &points),
            [Some(1.0)]
        );
        let cut = Reader {
            is_truncated: true,
            ..reader(InstrumentType::Counter, false)
        };
        assert_eq!(rates(cut, &[sum(100, 110, 20.0)]), [None]);
    }

    #[test]
    fn inconsistent_times_yield_no_rate() {
        let points = [
            sum(100, 110, 20.0),
            sum(100, 110, 30.0),
            sum(100, 90, 40.0),
            sum(u64::MAX / SECOND, 0, 50.0),
        ];
        let rates = rates(reader(InstrumentType::Counter, false), &points);
        assert_eq!(rates, [Some(2.0), None, None, None]);
    }
}
