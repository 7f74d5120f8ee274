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
mod import;
mod json;
mod limits;
mod receiver;
mod refused;
mod reject;
mod rejection;
mod status;

use axum::{Router, extract::Request, middleware};

use self::rejection::Rejection;
pub(crate) use self::{import::route as import_route, receiver::Receiver};
use crate::access::Access;

/// Returns the routes of a port, which accepts OTLP over HTTP and gRPC alike.
pub(crate) fn router(receiver: &Receiver, access: Access) -> Router {
    let router = http::router(receiver);
    #[cfg(feature = "grpc")]
    let router = router.merge(grpc::router(receiver));
    let ingest = receiver.ingest.clone();
    let state = guard::State {
        ingest: ingest.clone(),
        access,
    };
    router
        .fallback(async move |request: Request| {
            let path = request.uri().path().chars().take(100).collect();
            reject::reject(&ingest, &request, Rejection::UnknownPath { path })
        })
        .layer(middleware::from_fn_with_state(state, guard::guard))
}

/// Decodes a JSON body without a receiver.
#[cfg(test)]
pub(crate) fn decode_json(signal: crate::export::Signal, body: &[u8]) -> crate::export::Export {
    json::decode(signal, body).expect("valid OTLP/JSON")
}

#[cfg(test)]
mod tests;
