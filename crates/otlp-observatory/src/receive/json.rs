//! OTLP in JSON, as OTLP 1.9 defines it on top of the JSON mapping of protobuf: ids in hex, 64-bit integers as strings or
//! numbers, enumerations as numbers, unknown keys ignored, `null` the same as nothing.
//!
//! The types are those of `opentelemetry-proto`; their own serde is not used. It refuses what the mapping allows
//! (`{"arrayValue": {}}`, a `null` list, numbers in strings), and where a point or a metric has something it cannot read,
//! it loses the value or the metric without an error.

mod common;
mod fields;
mod logs;
mod metrics;
mod scalars;
mod traces;

use fields::Object;

use crate::export::{Export, Signal};

/// Nesting is bounded by `serde_json`, at 128 brackets.
pub(super) fn decode(signal: Signal, body: &[u8]) -> Result<Export, serde_json::Error> {
    Ok(match signal {
        Signal::Traces => Export::Traces(serde_json::from_slice::<Object<_>>(body)?.0),
        Signal::Metrics => Export::Metrics(serde_json::from_slice::<Object<_>>(body)?.0),
        Signal::Logs => Export::Logs(serde_json::from_slice::<Object<_>>(body)?.0),
    })
}

#[cfg(test)]
mod tests;
