//! The OTLP receivers: HTTP (protobuf and JSON) and gRPC, and the health endpoint beside them.
//!
//! They follow OTLP 1.9 (<https://opentelemetry.io/docs/specs/otlp/>): bytes become an [`Export`](crate::export::Export)
//! whose ids are valid, and that goes to [`Ingest`](crate::ingest::Ingest). All of a sender's bytes are bounded, in size
//! and in time.

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

/// The largest request, in bytes, as it comes over HTTP and again when it is decompressed. The largest batches that
/// collectors send by default are about half of it.
const MAX_HTTP_BODY: usize = 16 << 20;

/// The largest gRPC message, compressed or not: gRPC's own default.
const MAX_GRPC_MESSAGE: usize = 4 << 20;

/// How long a sender may take for one request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// When a sender that was turned away may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
