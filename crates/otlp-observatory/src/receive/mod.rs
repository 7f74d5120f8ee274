//! The OTLP receivers, HTTP (protobuf and JSON) and gRPC, and the health endpoint.
//!
//! They follow OTLP 1.9 (<https://opentelemetry.io/docs/specs/otlp/>). Requests are limited in size and time,
//! decoded into an [`Export`](crate::export::Export) with valid ids, and passed to
//! [`Ingest`](crate::ingest::Ingest).

mod body;
mod decoding;
mod encoding;
pub(crate) mod grpc;
pub(crate) mod health;
pub(crate) mod http;
mod ids;
mod json;
mod refusal;
mod status;
mod weight;

use std::time::Duration;

/// Maximum size of an HTTP request body in bytes, before and after decompression. The largest batches that
/// collectors send by default are about half of it.
const MAX_HTTP_BODY: usize = 16 << 20;

/// Maximum size of a gRPC message in bytes, before and after decompression; gRPC's default.
const MAX_GRPC_MESSAGE: usize = 4 << 20;

/// Maximum time for reading a request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay after which senders may retry a refused request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
