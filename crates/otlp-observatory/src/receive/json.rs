//! Decodes OTLP/JSON as OTLP 1.9 defines it on top of protobuf's JSON mapping: ids in hexadecimal, 64-bit
//! integers as strings or numbers, enumerations as numbers, unknown keys ignored, and `null` equal to an
//! absent key.
//!
//! The types come from `opentelemetry-proto`, but their serde implementations are not used: they reject input
//! that the mapping allows (`{"arrayValue": {}}`, a `null` list, numbers in strings), and silently drop
//! values and metrics that they cannot read.

mod messages;
mod values;

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use values::{FromJson, Json};

use crate::export::{Export, Signal};

/// Decodes a request body: a JSON document, or several of them one after the other, as in JSON lines, which count as one
/// request. Bytes that editors and shells add are skipped, and UTF-16 with a byte order mark is converted. `serde_json` limits
/// nesting to 128 levels.
pub(super) fn decode(signal: Signal, body: &[u8]) -> Result<Export, serde_json::Error> {
    let body = utf8(body);
    Ok(match signal {
        Signal::Traces => Export::Traces(merged(&body, |all: &mut ExportTraceServiceRequest, next| {
            all.resource_spans.extend(next.resource_spans);
        })?),
        Signal::Metrics => Export::Metrics(merged(&body, |all: &mut ExportMetricsServiceRequest, next| {
            all.resource_metrics.extend(next.resource_metrics);
        })?),
        Signal::Logs => Export::Logs(merged(&body, |all: &mut ExportLogsServiceRequest, next| {
            all.resource_logs.extend(next.resource_logs);
        })?),
    })
}

/// Decodes the documents in `body` and merges them with `merge`.
fn merged<T: FromJson>(body: &[u8], merge: impl Fn(&mut T, T)) -> Result<T, serde_json::Error> {
    let mut rest = trimmed(body);
    let mut all: Option<T> = None;
    loop {
        let mut documents = serde_json::Deserializer::from_slice(rest).into_iter::<Json<T>>();
        let document = documents.next().transpose()?;
        let after = &rest[documents.byte_offset()..];
        let next = trimmed(after);
        let separator = &after[..after.len() - next.len()];
        let is_separate = next.is_empty() || separator.iter().any(|byte| matches!(byte, b'\n' | 0x1e | 0xef));
        let (Some(Json(document)), true) = (document, is_separate) else {
            // The error of a single document: it is empty, or other characters follow it.
            return Ok(serde_json::from_slice::<Json<T>>(rest)?.0);
        };
        let merged = match all.take() {
            Some(mut all) => {
                merge(&mut all, document);
                all
            }
            None => document,
        };
        if next.is_empty() {
            return Ok(merged);
        }
        all = Some(merged);
        rest = next;
    }
}

/// Returns `text` without white space, byte order marks, record separators (RFC 7464) and end-of-file characters at its start.
fn trimmed(mut text: &[u8]) -> &[u8] {
    loop {
        let skipped = match text {
            [b' ' | b'\t' | b'\r' | b'\n' | 0 | 0x1a | 0x1e, ..] => 1,
            [0xef, 0xbb, 0xbf, ..] => 3,
            _ => return text,
        };
        text = &text[skipped..];
    }
}

/// Converts UTF-16 with a byte order mark to UTF-8.
fn utf8(body: &[u8]) -> Cow<'_, [u8]> {
    let unit: fn([u8; 2]) -> u16 = match body {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return body.into(),
    };
    let (pairs, _) = body[2..].as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().copied().map(unit).collect();
    String::from_utf16_lossy(&units).into_bytes().into()
}

#[cfg(test)]
mod tests;
