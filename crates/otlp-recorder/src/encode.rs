//! Encoding of spans and log records, as OTLP messages in protobuf. It happens on the thread that records: their parts are
//! in that processor's caches and were allocated there, so encoding them elsewhere costs several times as much.

mod attributes;
mod fields;
mod log;
mod request;
mod span;
mod wire;

pub use attributes::{Attributes, PrewrittenAttributes};
pub(crate) use log::LogEncoder;
pub(crate) use request::{Batch, RequestEncoder, ScopeId, Scopes};
pub(crate) use span::{EndedSpan, SpanContent, encode_sdk_span};
