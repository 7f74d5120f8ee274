//! Numbers from senders, without loss of digits.

use opentelemetry_proto::tonic::metrics::v1::{exemplar, number_data_point};
use serde::{Serialize, Serializer};

/// JavaScript's `Number.MAX_SAFE_INTEGER`: doubles represent all integers up to this one exactly.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// An exact integer, or a double that is not a safe integer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Integer(i64),
    Double(f64),
}

impl Number {
    pub(crate) const ZERO: Self = Self::Integer(0);

    /// Returns the nearest double.
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Double(value) => value,
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.combine(other, i64::checked_add, |a, b| a + b)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        self.combine(other, i64::checked_sub, |a, b| a - b)
    }

    /// Combines two integers exactly, and other numbers as doubles.
    fn combine(
        self,
        other: Self,
        integers: impl FnOnce(i64, i64) -> Option<i64>,
        doubles: impl FnOnce(f64, f64) -> f64,
    ) -> Self {
        if let (Self::Integer(a), Self::Integer(b)) = (self, other)
            && let Some(exact) = integers(a, b)
        {
            return Self::Integer(exact);
        }
        doubles(self.to_f64(), other.to_f64()).into()
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        if value.fract() == 0.0 && value.abs() <= MAX_SAFE_INTEGER as f64 {
            Self::Integer(value as i64)
        } else {
            Self::Double(value)
        }
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::Double(value as f64), Self::Integer)
    }
}

impl From<number_data_point::Value> for Number {
    fn from(value: number_data_point::Value) -> Self {
        match value {
            number_data_point::Value::AsDouble(value) => value.into(),
            number_data_point::Value::AsInt(value) => Self::Integer(value),
        }
    }
}

impl From<exemplar::Value> for Number {
    fn from(value: exemplar::Value) -> Self {
        match value {
            exemplar::Value::AsDouble(value) => value.into(),
            exemplar::Value::AsInt(value) => Self::Integer(value),
        }
    }
}

impl Serialize for Number {
    /// Serializes integers that JavaScript cannot represent exactly and non-finite numbers as strings.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Integer(value) if value.unsigned_abs() <= MAX_SAFE_INTEGER => {
                serializer.serialize_i64(value)
            }
            Self::Integer(value) => serializer.collect_str(&value),
            Self::Double(value) if value.is_finite() => serializer.serialize_f64(value),
            Self::Double(value) => serializer.collect_str(&value),
        }
    }
}
