//! The client side of OTLP 1.x (<https://opentelemetry.io/docs/specs/otlp/>): one [`Sender`] per signal, over
//! HTTP or gRPC, which retries as the specification requires until its deadline. Requests are not queued
//! here.

#[cfg(feature = "grpc")]
mod codec;
mod connector;
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

use crate::collector::Protocol;
use crate::destination::{CustomExporter, Destination, Request};
#[cfg(feature = "grpc")]
pub use codec::RawCodec;
pub use http::retry_after;
#[cfg(feature = "json")]
pub(crate) use json::json_body;
pub(crate) use outcome::{Accepted, Retry, SendError, TransportError};

/// Sends the requests of a signal.
pub(crate) trait Transport: Send + 'static {
    /// Sends one request, with retries, until `deadline` at the latest.
    fn send(
        &mut self,
        request: &Request,
        deadline: Instant,
    ) -> impl Future<Output = Result<Accepted, SendError>> + Send;
}

/// The transport to the [`Destination`] of one signal.
#[derive(Debug)]
pub(crate) enum Sender {
    Custom(CustomExporter),
    Http(Box<http::Http>),
    #[cfg(feature = "grpc")]
    Grpc(Box<grpc::Grpc>),
}

impl Sender {
    /// Creates a client without connecting; reads certificate and key files. Must be called on the runtime
    /// that sends. A file that cannot be read is ignored with a warning.
    ///
    /// # Errors
    ///
    /// Returns an error if no client can be created, for example for an https endpoint without any CA
    /// certificate.
    pub(crate) fn new(destination: &Destination, warnings: &mut Vec<String>) -> Result<Self, TransportError> {
        let collector = match destination {
            Destination::Collector(collector) => collector,
            Destination::Custom(custom) => return Ok(Self::Custom(custom.clone())),
        };
        Ok(match collector.protocol {
            #[cfg(feature = "grpc")]
            Protocol::Grpc => Self::Grpc(Box::new(grpc::Grpc::new(collector, warnings)?)),
            #[cfg(not(feature = "grpc"))]
            Protocol::Grpc => return Err(TransportError::MissingFeature("gRPC", "grpc")),
            #[cfg(not(feature = "json"))]
            Protocol::HttpJson => return Err(TransportError::MissingFeature("http/json", "json")),
            _ => Self::Http(Box::new(http::Http::new(collector, warnings)?)),
        })
    }
}

impl Transport for Sender {
    async fn send(&mut self, request: &Request, deadline: Instant) -> Result<Accepted, SendError> {
        let end = |timeout| {
            let end = Instant::now().checked_add(timeout);
            end.map_or(deadline, |end| deadline.min(end))
        };
        match self {
            Self::Custom(custom) => match custom.export(request) {
                Ok(()) => Ok(Accepted::default()),
                Err(error) => Err(SendError {
                    error_type: "io".into(),
                    message: format!("{}: {error}", custom.name()),
                    retry: Retry::Never,
                }),
            },
            Self::Http(http) => {
                let end = end(http.timeout);
                let body = http.body(request);
                retry::until(request.signal(), end, || http.attempt(body.clone())).await
            }
            #[cfg(feature = "grpc")]
            Self::Grpc(grpc) => {
                let end = end(grpc.timeout);
                let sent = retry::until(request.signal(), end, || grpc.attempt(request)).await;
                if matches!(&sent, Err(error) if error.error_type == outcome::TIMEOUT) {
                    grpc.reconnect();
                }
                sent
            }
        }
    }
}
