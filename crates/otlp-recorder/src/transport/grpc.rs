//! OTLP over gRPC. Calls use [`RawCodec`], because a request is encoded once for all attempts; the generated
//! clients would clone the message for each attempt.

use std::error::Error;
use std::time::Duration;

use http::HeaderMap;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client;
#[cfg(feature = "gzip")]
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Extensions, Status};

use super::codec::RawCodec;
use super::outcome::{Accepted, MAX_RESPONSE, Retry, SendError, TransportError, USER_AGENT, described};
use super::response;
use super::tls::Tls;
use crate::collector::{Collector, Compression};
use crate::destination::Request;
use crate::signal::Signal;

/// Minimum size in bytes of a request that is split when the collector reports exhausted resources without naming them.
/// Smaller requests are unlikely to be too large.
const MIN_SPLIT: usize = 64 * 1024;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

#[derive(Debug)]
pub(crate) struct Grpc {
    endpoint: Endpoint,
    compression: Compression,
    client: client::Grpc<Channel>,
    headers: HeaderMap,
    /// Time limit of one export, retries included.
    pub(super) timeout: Duration,
}

impl Grpc {
    pub(super) fn new(collector: &Collector, warnings: &mut Vec<String>) -> Result<Self, TransportError> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "TLS changes it"))]
        let mut endpoint = Endpoint::from_shared(collector.endpoint.clone())?.user_agent(USER_AGENT)?;
        let tls = Tls::read(collector, warnings)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = client_tls(tls) {
            endpoint = endpoint.tls_config(tls)?;
        }
        #[cfg(not(feature = "tls"))]
        let _ = tls;
        Ok(Self {
            client: client(&endpoint, collector.compression),
            endpoint,
            compression: collector.compression,
            headers: collector.headers.clone(),
            timeout: collector.timeout,
        })
    }

    /// Replaces the connection. In HTTP/2, a call that times out leaves the connection open; with an
    /// unreachable peer, every later call on that connection would time out too.
    pub(super) fn reconnect(&mut self) {
        self.client = client(&self.endpoint, self.compression);
    }

    pub(super) async fn attempt(&self, request: &Request) -> Result<Accepted, SendError> {
        // Clones share their connection.
        let mut client = self.client.clone();
        if let Err(error) = client.ready().await {
            return Err(SendError::connection(described(&error)));
        }
        let path = PathAndQuery::from_static(match request.signal() {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        });
        let metadata = MetadataMap::from_headers(self.headers.clone());
        let message = request.protobuf().clone();
        let request = tonic::Request::from_parts(metadata, Extensions::default(), message);
        match client.unary(request, path, RawCodec).await {
            Ok(message) => Ok(response::from_protobuf(message.get_ref(), &self.headers)),
            Err(status) => Err(rejected(&status)),
        }
    }
}

/// Returns a client that connects on its first call.
fn client(endpoint: &Endpoint, compression: Compression) -> client::Grpc<Channel> {
    let client = client::Grpc::new(endpoint.connect_lazy()).max_decoding_message_size(MAX_RESPONSE);
    match compression {
        #[cfg(feature = "gzip")]
        Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
        _ => client,
    }
}

#[cfg(feature = "tls")]
fn client_tls(tls: Tls) -> Option<tonic::transport::ClientTlsConfig> {
    use super::tls::Roots;
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};

    let config = match tls.roots {
        Roots::None => return None,
        Roots::System => ClientTlsConfig::new().with_native_roots(),
        Roots::Own(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
    };
    Some(match tls.client {
        Some(client) => config.identity(Identity::from_pem(client.certificate, client.key)),
        None => config,
    })
}

/// Returns the error for a failed call. A status with a source is a connection error of the client. The
/// message of the collector is omitted, because it may quote exported data.
fn rejected(status: &Status) -> SendError {
    if let Some(cause) = status.source() {
        return SendError::connection(described(cause));
    }
    let retry = match status.code() {
        Code::ResourceExhausted | Code::OutOfRange if is_about_size(status) => Retry::Smaller(0),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => retry_delay(status).map_or(Retry::AfterBackoff, Retry::After),
        Code::ResourceExhausted => retry_delay(status).map_or(Retry::Smaller(MIN_SPLIT), Retry::After),
        _ => Retry::Never,
    };
    let name = name(status.code());
    SendError {
        message: format!("the collector responded with gRPC status {name}"),
        error_type: name.into(),
        retry,
    }
}

/// Whether the status rejects the size of a message, in the words that gRPC implementations use.
fn is_about_size(status: &Status) -> bool {
    let message = status.message();
    ["larger than", "too large", "maximum size"]
        .iter()
        .any(|words| message.contains(words))
}

/// Returns the name of `code` as the gRPC specification spells it, such as `DATA_LOSS`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// Returns the `retry_delay` of the `google.rpc.RetryInfo` in the details of the status.
fn retry_delay(status: &Status) -> Option<Duration> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let detail = details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(&detail.value[..]).ok()?.retry_delay?;
    let (seconds, nanos) = (
        u64::try_from(delay.seconds).ok()?,
        u32::try_from(delay.nanos).ok()?,
    );
    // `Duration::new` panics if carrying over excess nanoseconds overflows the seconds.
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// `google.rpc.Status`, limited to its details.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyDetail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyDetail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::bytes::Bytes;

    fn with_delay(code: Code, seconds: i64, nanos: i32) -> Status {
        let retry_info = RetryInfo {
            retry_delay: Some(Delay { seconds, nanos }),
        };
        let other = AnyDetail {
            type_url: "type.googleapis.com/google.rpc.Help".to_owned(),
            value: vec![0xff],
        };
        let detail = AnyDetail {
            type_url: RETRY_INFO.to_owned(),
            value: retry_info.encode_to_vec(),
        };
        let status = RpcStatus {
            details: vec![other, detail],
        };
        Status::with_details(code, "wait", status.encode_to_vec().into())
    }

    #[test]
    fn six_statuses_are_retried() {
        let retried: Vec<Code> = (0..=16)
            .map(Code::from_i32)
            .filter(|code| rejected(&Status::new(*code, "")).retry == Retry::AfterBackoff)
            .collect();
        assert_eq!(
            retried,
            [
                Code::Cancelled,
                Code::DeadlineExceeded,
                Code::Aborted,
                Code::OutOfRange,
                Code::Unavailable,
                Code::DataLoss
            ]
        );
    }

    #[test]
    fn resource_exhausted_is_retried_after_a_requested_delay_or_with_a_smaller_request() {
        let rejected = |status: &Status| rejected(status).retry;
        let exhausted = Code::ResourceExhausted;
        assert_eq!(rejected(&Status::new(exhausted, "")), Retry::Smaller(MIN_SPLIT));
        assert_eq!(
            rejected(&with_delay(exhausted, 2, 500_000_000)),
            Retry::After(Duration::from_millis(2_500))
        );
        assert_eq!(
            rejected(&with_delay(Code::Unavailable, 1, 0)),
            Retry::After(Duration::from_secs(1))
        );
        assert_eq!(rejected(&with_delay(Code::InvalidArgument, 1, 0)), Retry::Never);
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MAX, i32::MAX)] {
            assert_eq!(
                rejected(&with_delay(exhausted, seconds, nanos)),
                Retry::Smaller(MIN_SPLIT)
            );
        }
        let garbage = Status::with_details(exhausted, "", Bytes::from_static(b"\xff\xff"));
        assert_eq!(rejected(&garbage), Retry::Smaller(MIN_SPLIT));
        for (code, message) in [
            (
                exhausted,
                "grpc: received message larger than max (4700000 vs. 4194304)",
            ),
            (exhausted, "gRPC message exceeds maximum size 4194304: 4700000"),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 4700000 bytes",
            ),
        ] {
            assert_eq!(
                rejected(&Status::new(code, message)),
                Retry::Smaller(0),
                "{message}"
            );
        }
    }

    #[test]
    fn the_message_of_the_collector_is_omitted() {
        let failure = rejected(&Status::new(Code::Unauthenticated, "bad token s3cret"));
        assert_eq!(failure.error_type, "UNAUTHENTICATED");
        assert_eq!(
            failure.message,
            "the collector responded with gRPC status UNAUTHENTICATED"
        );
    }
}
