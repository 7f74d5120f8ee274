//! The OTLP receivers for HTTP (protobuf and JSON) and gRPC, and the health endpoint.
//!
//! The receivers follow OTLP 1.9 (<https://opentelemetry.io/docs/specs/otlp/>). Requests are limited in size
//! and time, decoded into an [`Export`](crate::export::Export) with valid ids, and passed to
//! [`Ingest`](crate::ingest::Ingest).

mod body;
mod decoded_size;
mod decoding;
mod encoding;
#[cfg(feature = "grpc")]
pub(crate) mod grpc;
pub(crate) mod health;
pub(crate) mod http;
mod ids;
mod json;
mod limits;
mod rejection;
mod status;

#[cfg(test)]
mod tests;
