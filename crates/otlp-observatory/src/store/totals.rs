//! Running totals of a series, which do not change when old points are evicted.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
};

use super::number::Number;

/// Total of a series: the newest point of a cumulative series or gauge, or the sum of all points of a delta
/// series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Totals {
    /// Value of a sum or gauge, or number of observations.
    pub(crate) value: Number,
    /// Sum of the observations; NaN if unknown.
    pub(crate) sum: f64,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Totals {
    /// Totals of a series without points.
    pub(crate) const EMPTY: Self = Self {
        value: Number::ZERO,
        sum: 0.0,
        min: None,
        max: None,
    };

    /// Adds the totals of other points.
    pub(crate) fn add(&mut self, other: Self) {
        if other.value == Number::ZERO {
            return;
        }
        if self.value == Number::ZERO {
            *self = other;
            return;
        }
        self.value = self.value.plus(other.value);
        self.sum += other.sum;
        self.min = both(self.min, other.min, f64::min);
        self.max = both(self.max, other.max, f64::max);
    }

    /// Returns the mean of the observations.
    pub(crate) fn mean(&self) -> Option<f64> {
        mean(self.sum, self.value.to_f64())
    }
}

/// Returns the mean of observations; `None` if it is unknown or there are none.
pub(crate) fn mean(sum: f64, count: f64) -> Option<f64> {
    Some(sum / count).filter(|mean| mean.is_finite())
}

/// Combines two known extremes.
pub(crate) fn both(a: Option<f64>, b: Option<f64>, combine: fn(f64, f64) -> f64) -> Option<f64> {
    Some(combine(a?, b?))
}

impl From<&NumberDataPoint> for Totals {
    fn from(point: &NumberDataPoint) -> Self {
        Self {
            value: point.value.map_or(Number::ZERO, Number::from),
            ..Self::EMPTY
        }
    }
}

impl From<&HistogramDataPoint> for Totals {
    fn from(point: &HistogramDataPoint) -> Self {
        Self {
            value: point.count.into(),
            sum: point.sum.unwrap_or(f64::NAN),
            min: point.min,
            max: point.max,
        }
    }
}

impl From<&ExponentialHistogramDataPoint> for Totals {
    fn from(point: &ExponentialHistogramDataPoint) -> Self {
        Self {
            value: point.count.into(),
            sum: point.sum.unwrap_or(f64::NAN),
            min: point.min,
            max: point.max,
        }
    }
}

impl From<&SummaryDataPoint> for Totals {
    fn from(point: &SummaryDataPoint) -> Self {
        Self {
            value: point.count.into(),
            sum: point.sum,
            ..Self::EMPTY
        }
    }
}
