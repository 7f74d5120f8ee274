//! Decodes OTLP/JSON as OTLP 1.9 defines it on top of protobuf's JSON mapping: ids in hexadecimal, 64-bit
//! integers as strings or numbers, enumerations as numbers, unknown keys ignored, and `null` equal to an
//! absent key.
//!
//! The types come from `opentelemetry-proto`, but their serde implementations are not used: they reject input
//! that the mapping allows (`{"arrayValue": {}}`, a `null` list, numbers in strings), and silently drop
//! values and metrics that they cannot read.

mod messages;
mod values;

use values::Json;

use crate::export::{Export, Signal};

/// Decodes a request body. `serde_json` limits nesting to 128 levels.
pub(super) fn decode(signal: Signal, body: &[u8]) -> Result<Export, serde_json::Error> {
    Ok(match signal {
        Signal::Traces => Export::Traces(serde_json::from_slice::<Json<_>>(body)?.0),
        Signal::Metrics => Export::Metrics(serde_json::from_slice::<Json<_>>(body)?.0),
        Signal::Logs => Export::Logs(serde_json::from_slice::<Json<_>>(body)?.0),
    })
}

#[cfg(test)]
mod tests;
