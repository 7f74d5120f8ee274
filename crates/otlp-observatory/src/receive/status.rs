//! Error response of OTLP: `google.rpc.Status` with the detail `RetryInfo` (`google/rpc/status.proto` and
//! `google/rpc/error_details.proto` of googleapis).

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
    /// Omitted in JSON, where only the header `Retry-After` contains the delay.
    #[prost(message, repeated, tag = "3")]
    #[serde(skip)]
    pub(super) details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Delay {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl Status {
    /// Creates a status. Without a retry delay, senders treat `RESOURCE_EXHAUSTED` as permanent.
    pub(super) fn new(code: tonic::Code, message: String, retry_after: Option<Duration>) -> Self {
        let details = retry_after.map(|delay| {
            let retry_info = RetryInfo {
                retry_delay: Some(Delay {
                    seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                    nanos: delay.subsec_nanos().cast_signed(),
                }),
            };
            Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: retry_info.encode_to_vec(),
            }
        });
        Self {
            code: code.into(),
            message,
            details: details.into_iter().collect(),
        }
    }
}
