//! `google.rpc.Status` with the detail `RetryInfo` (googleapis, `google/rpc/status.proto` and
//! `error_details.proto`), OTLP's error response.

use std::time::Duration;

use prost::Message;
use serde::Serialize;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub(super) struct Status {
    /// Numeric [`tonic::Code`].
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    /// Omitted in JSON, where the header `Retry-After` has the delay.
    #[prost(message, repeated, tag = "3")]
    #[serde(skip)]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    pub(super) fn new(code: tonic::Code, message: String) -> Self {
        Self {
            code: code.into(),
            message,
            details: Vec::new(),
        }
    }

    /// Adds a retry delay. Without one, senders treat `RESOURCE_EXHAUSTED` as permanent.
    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        let info = RetryInfo {
            retry_delay: Some(Delay {
                seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                nanos: delay.subsec_nanos().cast_signed(),
            }),
        };
        self.details.push(Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        });
        self
    }
}

#[cfg(all(test, feature = "grpc"))]
impl Status {
    pub(super) fn retry_delay(&self) -> Option<Duration> {
        let info = self
            .details
            .iter()
            .find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
        let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
        Some(Duration::new(
            delay.seconds.try_into().ok()?,
            delay.nanos.try_into().ok()?,
        ))
    }
}
