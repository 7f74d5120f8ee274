//! Computes readings from the points of a series: rates, and the distribution of observations since the
//! previous point. Cumulative points are compared with their predecessors and delta points are used as they
//! are, with the same results.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, SummaryDataPoint,
};
use prost::Message as _;
use serde::Serialize;

use super::{
    UnixNano,
    histogram::Distribution,
    instrument::InstrumentType,
    points::{Point, PointValue},
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
        value: f64,
    },
    Value {
        value: f64,
    },
    Histogram {
        rate: Option<f64>,
        p50: Option<f64>,
        p95: Option<f64>,
        p99: Option<f64>,
        count: u64,
        sum: Option<f64>,
    },
    Summary {
        count: u64,
        sum: f64,
        quantiles: BTreeMap<String, f64>,
    },
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
}

impl Reader {
    /// Computes the readings of `points`, which must be in order of arrival.
    pub(crate) fn read(self, points: &[Point]) -> Vec<Reading> {
        let before = std::iter::once(None).chain(points.iter().map(Some));
        let readings = points.iter().zip(before).filter_map(|(point, before)| {
            Some(Reading {
                time_unix_nano: UnixNano(point.time),
                value: self.value(before, point)?,
            })
        });
        readings.collect()
    }

    fn value(self, before: Option<&Point>, point: &Point) -> Option<ReadingValue> {
        match (&point.value, self.instrument_type) {
            (PointValue::Number(value), InstrumentType::Counter) => Some(self.counter(before, point, *value)),
            (PointValue::Number(value), _) => Some(ReadingValue::Value { value: *value }),
            (PointValue::Encoded(encoded), InstrumentType::Summary) => {
                let summary = SummaryDataPoint::decode(&**encoded).ok()?;
                let quantiles = summary.quantile_values.iter();
                Some(ReadingValue::Summary {
                    count: summary.count,
                    sum: summary.sum,
                    quantiles: quantiles.map(|at| (at.quantile.to_string(), at.value)).collect(),
                })
            }
            (PointValue::Encoded(_), _) => self.histogram(before, point),
        }
    }

    fn counter(self, before: Option<&Point>, point: &Point, value: f64) -> ReadingValue {
        let change = self.change(before, point, value, |value, base| match base.value {
            PointValue::Number(number) if *value >= number => Some(value - number),
            _ => None,
        });
        let rate = change.and_then(|(change, seconds)| Some(change / seconds?));
        ReadingValue::Counter { rate, value }
    }

    fn histogram(self, before: Option<&Point>, point: &Point) -> Option<ReadingValue> {
        let total = self.distribution(point)?;
        let change_since = |total: &Distribution, base: &Point| total.since(&self.distribution(base)?);
        let (observed, seconds) = self.change(before, point, total, change_since)?;
        let [p50, p95, p99] = observed.quantiles([0.50, 0.95, 0.99]);
        Some(ReadingValue::Histogram {
            rate: seconds.map(|seconds| observed.count as f64 / seconds),
            p50,
            p95,
            p99,
            count: observed.count,
            sum: Some(observed.sum).filter(|sum| sum.is_finite()),
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
        let PointValue::Encoded(encoded) = &point.value else {
            return None;
        };
        if self.instrument_type == InstrumentType::ExponentialHistogram {
            return Some(ExponentialHistogramDataPoint::decode(&**encoded).ok()?.into());
        }
        Some(HistogramDataPoint::decode(&**encoded).ok()?.into())
    }

    /// Whether the series was observed from the start of `point`, its first stored point.
    fn is_observed_from_start(self, point: &Point) -> bool {
        !self.is_truncated && point.start >= self.observed_since && point.start != 0
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

    fn rates(reader: Reader, points: &[Point]) -> Vec<Option<f64>> {
        let rate = |reading: Reading| match reading.value {
            ReadingValue::Counter { rate, .. } | ReadingValue::Histogram { rate, .. } => rate,
            other => panic!("{other:?}"),
        };
        reader.read(points).into_iter().map(rate).collect()
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
        let readings = reader(InstrumentType::Histogram, false).read(&cumulative);
        assert_eq!(readings, reader(InstrumentType::Histogram, true).read(&delta));
        let expected = |rate, p50, p95, p99, count, sum| ReadingValue::Histogram {
            rate: Some(rate),
            p50,
            p95,
            p99,
            count,
            sum: Some(sum),
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
