//! OTLP 1.x, the sending side: one [`Sender`] per signal, over gRPC or HTTP, that retries as the protocol's specification
//! says (<https://opentelemetry.io/docs/specs/otlp/>) and gives up at its deadline. It keeps nothing: what cannot be sent
//! is its caller's to drop.

mod grpc;
mod http;
mod json;
mod response;
mod retry;
mod tls;

use std::error::Error;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use prost::bytes::Bytes;
use tokio::time::Instant;

use crate::config::{Otlp, Protocol, Signal};

/// Who sends, in the form that the specification of the exporters gives.
const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// An answer is a few bytes, or a few lines when it complains; more of it is not read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What a collector is asked to take.
#[derive(Debug)]
pub(crate) enum Request {
    /// An `ExportTraceServiceRequest`, encoded already.
    Traces(Bytes),
    Metrics(ExportMetricsServiceRequest),
    /// An `ExportLogsServiceRequest`, encoded already.
    Logs(Bytes),
}

impl Request {
    fn protobuf(&self) -> Bytes {
        match self {
            Self::Traces(request) | Self::Logs(request) => request.clone(),
            Self::Metrics(request) => request.encode_to_vec().into(),
        }
    }
}

/// What the collector said about a request that it took.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Accepted {
    /// How many spans, data points or log records it did not take: a partial success.
    pub(crate) rejected: u64,
    /// Its words about that, or a warning; short, masked, and without the values of our headers.
    pub(crate) message: Option<String>,
}

/// Why a request was not taken. What it says names neither the values of headers nor the endpoint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SendError {
    /// One of few words, for `error.type`: a status code of HTTP, a status of gRPC, `timeout` or `connection_error`.
    pub(crate) error_type: &'static str,
    /// How long the collector asks to be left alone, where that is longer than the deadline was away.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) message: String,
}

/// Why a signal cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the gRPC client cannot be made: {0}")]
    Grpc(#[from] tonic::transport::Error),
    #[error("the endpoint cannot be used")]
    Endpoint,
}

/// One signal's way to its collector.
#[derive(Debug)]
pub(crate) struct Sender {
    signal: Signal,
    transport: Transport,
    /// Of one request with its retries.
    timeout: Duration,
}

#[derive(Debug)]
enum Transport {
    Http(http::Http),
    Grpc(Box<grpc::Grpc>),
}

impl Sender {
    /// Reads the files of certificates and keys, but does not connect. To be called inside the runtime that it will send
    /// from. What cannot be read is left out with a warning.
    ///
    /// # Errors
    /// When there is no client to be had, as without any certificates to check an https endpoint's with.
    pub(crate) fn new(
        signal: Signal,
        otlp: &Otlp,
        warnings: &mut Vec<String>,
    ) -> Result<Self, TransportError> {
        let transport = match otlp.protocol {
            Protocol::Grpc => Transport::Grpc(Box::new(grpc::Grpc::new(signal, otlp, warnings)?)),
            Protocol::HttpProtobuf | Protocol::HttpJson => Transport::Http(http::Http::new(otlp, warnings)?),
        };
        Ok(Self {
            signal,
            transport,
            timeout: otlp.timeout,
        })
    }

    /// Sends `request`, again and again where that may help, until the exporter's own time-out or `deadline` is over,
    /// whichever comes first.
    ///
    /// # Errors
    /// The last attempt's.
    pub(crate) async fn send(&mut self, request: &Request, deadline: Instant) -> Result<Accepted, SendError> {
        let end = deadline.min(Instant::now() + self.timeout);
        match &mut self.transport {
            Transport::Http(http) => {
                let body = http.body(request);
                retry::until(self.signal, end, || http.attempt(body.clone())).await
            }
            Transport::Grpc(grpc) => {
                let message = request.protobuf();
                let sent = retry::until(self.signal, end, || grpc.attempt(message.clone())).await;
                if matches!(&sent, Err(error) if error.error_type == retry::TIMEOUT) {
                    grpc.reconnect();
                }
                sent
            }
        }
    }
}

/// An error and what it comes from.
fn described(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
