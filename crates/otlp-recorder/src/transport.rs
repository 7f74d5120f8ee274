//! The client side of OTLP 1.x (<https://opentelemetry.io/docs/specs/otlp/>): one [`Sender`] per signal, over
//! HTTP or gRPC, which retries as the specification requires until its deadline. Requests are not queued
//! here.

#[cfg(feature = "grpc")]
mod grpc;
mod http;
#[cfg(feature = "json")]
mod json;
mod outcome;
mod response;
mod retry;
mod tls;

use tokio::time::Instant;

use crate::collector::{Collector, Protocol};
use crate::destination::Request;
use crate::signal::Signal;
use crate::text::Redact;
pub(crate) use outcome::{Accepted, SendError, TransportError};

/// Client of the collector for one signal.
#[derive(Debug)]
pub(crate) struct Sender {
    signal: Signal,
    transport: Transport,
    collector: Collector,
}

#[derive(Debug)]
enum Transport {
    Http(http::Http),
    #[cfg(feature = "grpc")]
    Grpc(Box<grpc::Grpc>),
}

impl Sender {
    /// Creates a client without connecting; reads certificate and key files. Must be called on the runtime
    /// that sends. A file that cannot be read is ignored with a warning. Errors and responses are redacted
    /// with `redact`.
    ///
    /// # Errors
    ///
    /// Returns an error if no client can be created, for example for an https endpoint without any CA
    /// certificate.
    pub(crate) fn new(
        signal: Signal,
        collector: &Collector,
        redact: Option<Redact>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, TransportError> {
        let transport = match collector.protocol {
            #[cfg(feature = "grpc")]
            Protocol::Grpc => {
                Transport::Grpc(Box::new(grpc::Grpc::new(signal, collector, redact, warnings)?))
            }
            #[cfg(not(feature = "grpc"))]
            Protocol::Grpc => return Err(TransportError::MissingFeature("gRPC", "grpc")),
            #[cfg(not(feature = "json"))]
            Protocol::HttpJson => return Err(TransportError::MissingFeature("http/json", "json")),
            _ => Transport::Http(http::Http::new(collector, redact, warnings)?),
        };
        Ok(Self {
            signal,
            transport,
            collector: collector.clone(),
        })
    }

    /// Sends `request`, with retries, until the time-out of the collector or `deadline`, whichever comes
    /// first.
    ///
    /// # Errors
    ///
    /// Returns the error of the last attempt.
    pub(crate) async fn send(&mut self, request: &Request, deadline: Instant) -> Result<Accepted, SendError> {
        let end = deadline.min(Instant::now() + self.collector.timeout);
        match &mut self.transport {
            Transport::Http(http) => {
                let body = http.body(request);
                retry::until(self.signal, end, || http.attempt(body.clone())).await
            }
            #[cfg(feature = "grpc")]
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
