//! Encoding of spans and log records as OTLP messages in protobuf. The recording thread encodes them, because
//! their parts are in the caches of its processor; encoding on another thread costs several times as much.

mod attributes;
mod fields;
mod log;
mod request;
mod span;
mod split;
mod wire;

pub use attributes::{Attributes, PrewrittenAttributes};
pub(crate) use log::LogEncoder;
pub(crate) use request::{Batch, RequestEncoder, ScopeId, Scopes, size};
pub(crate) use span::{EndedSpan, SpanContent, encode_sdk_span};
pub(crate) use split::halves;
#[cfg(feature = "json")]
pub(crate) use wire::varint_at;
