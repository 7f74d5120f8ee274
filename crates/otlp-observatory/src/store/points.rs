//! Stored form of metric points.

use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, number_data_point};
use prost::Message;

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

/// Value of a point, in a form that depends on the type of its instrument.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PointValue {
    /// Value of a counter or gauge.
    Number(f64),
    /// Data point of a histogram or summary in OTLP's protobuf encoding.
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
        Some(Self::Number(match point.value? {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        }))
    }

    pub(crate) fn encode(point: &impl Message) -> Self {
        Self::Encoded(point.encode_to_vec().into())
    }
}
