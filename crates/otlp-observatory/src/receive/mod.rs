//! The OTLP receivers, each for HTTP (protobuf and JSON) and gRPC, and the health endpoint.
//!
//! The receivers follow OTLP 1.9 (<https://opentelemetry.io/docs/specs/otlp/>). Requests are limited in size
//! and time, decoded into an [`Export`](crate::export::Export) with valid ids, and passed to
//! [`Ingest`](crate::ingest::Ingest).

mod body;
mod body_memory;
mod decoded_size;
mod decoding;
mod encoding;
#[cfg(feature = "grpc")]
mod grpc;
mod guard;
pub(crate) mod health;
mod http;
mod ids;
mod json;
mod limits;
mod rejection;
mod status;

use axum::{Router, extract::Request, middleware, response::Response};

use self::{body_memory::BodyMemory, decoding::Decoder, rejection::Rejection};
use crate::{access::Access, ingest::Ingest};

/// The receivers of all ports, which share the memory for request bodies.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    ingest: Ingest,
    memory: BodyMemory,
    decoder: Decoder,
}

impl Receiver {
    pub(crate) fn new(ingest: Ingest) -> Self {
        Self {
            ingest,
            memory: BodyMemory::new(),
            decoder: Decoder::new(),
        }
    }

    /// Returns the routes of a port, which accepts OTLP over HTTP and gRPC alike.
    pub(crate) fn router(&self, access: Access) -> Router {
        let router = http::router(self);
        #[cfg(feature = "grpc")]
        let router = router.merge(grpc::router(self));
        let ingest = self.ingest.clone();
        let state = guard::State {
            ingest: self.ingest.clone(),
            access,
        };
        router
            .fallback(async move |request: Request| {
                let path = request.uri().path().chars().take(100).collect();
                reject(&ingest, &request, Rejection::UnknownPath { path })
            })
            .layer(middleware::from_fn_with_state(state, guard::guard))
    }
}

/// Counts a rejected request, and returns the response in the protocol of the request.
fn reject(ingest: &Ingest, request: &Request, rejection: Rejection) -> Response {
    #[cfg(feature = "grpc")]
    if grpc::is_grpc(request.headers()) {
        return grpc::reject(ingest, rejection);
    }
    #[cfg(not(feature = "grpc"))]
    let rejection = match rejection {
        Rejection::UnknownPath { path } if path.starts_with("/opentelemetry.proto.") => Rejection::Grpc,
        rejection => rejection,
    };
    http::reject(ingest, request.headers(), &rejection)
}

#[cfg(test)]
mod tests;
