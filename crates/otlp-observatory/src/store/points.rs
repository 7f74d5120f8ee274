//! Stored form of metric points.

use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use prost::Message;

use super::{memory, number::Number};

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

/// Value of a point, in a form that depends on the type of its instrument.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PointValue {
    /// Value of a sum or gauge.
    Number(f64),
    /// Data point of a histogram or summary in OTLP's protobuf encoding; of a sum or gauge, an integer that no
    /// double represents, in little-endian order.
    Encoded(Box<[u8]>),
}

impl Point {
    /// Allocated bytes, without `size_of::<Self>()`.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.value {
            PointValue::Number(_) => 0,
            PointValue::Encoded(encoded) => memory::heap(encoded.len()),
        }
    }
}

impl PointValue {
    /// Returns the value of `point`; `None` if it has none.
    pub(crate) fn number(point: &NumberDataPoint) -> Option<Self> {
        Some(match Number::from(point.value?) {
            Number::Double(value) => Self::Number(value),
            exact @ Number::Integer(value) if Number::from(exact.to_f64()) != exact => {
                Self::Encoded(value.to_le_bytes().into())
            }
            integer @ Number::Integer(_) => Self::Number(integer.to_f64()),
        })
    }

    /// Returns the value of a sum or gauge.
    pub(crate) fn as_number(&self) -> Option<Number> {
        match self {
            Self::Number(value) => Some(Number::from(*value)),
            Self::Encoded(integer) => Some(Number::Integer(i64::from_le_bytes((**integer).try_into().ok()?))),
        }
    }

    pub(crate) fn encode(point: &impl Message) -> Self {
        Self::Encoded(point.encode_to_vec().into())
    }
}
