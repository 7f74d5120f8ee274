//! Estimates the memory use of a request before it is decoded. Two bytes of protobuf can decode to a span of
//! several hundred bytes, so without this limit 16 KiB of gzip could expand to gigabytes.

use std::mem::size_of;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, EntityRef, KeyValue},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, SummaryDataPoint, summary_data_point::ValueAtQuantile,
    },
    trace::v1::{
        ResourceSpans, ScopeSpans, Span,
        span::{Event, Link},
    },
};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::rejection::Rejection;
use crate::export::Signal;

/// Maximum size of the decoded messages of a request without their strings, in bytes.
///
/// The largest batches from real senders use half of this limit.
const MAX_DECODED_BYTES: usize = 64 << 20;

/// Maximum number of objects in a JSON request, each of which decodes to a few hundred bytes at most.
///
/// Braces in strings count too, which is harmless.
const MAX_OBJECTS: usize = 600_000;

/// Average size of a decoded JSON object, in bytes.
const OBJECT: usize = 192;

/// Message type: its decoded size, and the fields that are messages or repeated strings.
struct MessageType {
    /// Size in bytes; 0 if the message is stored inline in its parent.
    size: usize,
    fields: &'static [(u32, &'static MessageType)],
}

/// Checks the number of objects in a JSON body, and returns their estimated size in bytes.
///
/// # Errors
/// [`Rejection::TooManyItems`]
pub(super) fn check_json(body: &[u8]) -> Result<usize, Rejection> {
    let objects = memchr::memchr_iter(b'{', body).count();
    if objects > MAX_OBJECTS {
        return Err(Rejection::TooManyItems);
    }
    Ok(objects * OBJECT)
}

/// Checks the estimated size of a protobuf body, and returns it in bytes. An invalid body passes, because the decoder
/// reports the error.
///
/// # Errors
/// [`Rejection::TooManyItems`]
pub(super) fn check_protobuf(signal: Signal, body: &[u8]) -> Result<usize, Rejection> {
    let message_type = match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    };
    let mut left = MAX_DECODED_BYTES;
    subtract_size(body, message_type, &mut left, MAX_DEPTH).ok_or(Rejection::TooManyItems)?;
    Ok(MAX_DECODED_BYTES - left)
}

/// Maximum nesting depth of messages, the same as in the decoder.
const MAX_DEPTH: u32 = 100;

/// Subtracts the decoded size of `body` from `left`; returns `None` if `left` is too small.
fn subtract_size(mut body: &[u8], message_type: &MessageType, left: &mut usize, depth: u32) -> Option<()> {
    while let Ok((tag, wire_type)) = decode_key(&mut body) {
        let field = message_type.fields.iter().find(|(field, _)| *field == tag);
        let Some((_, field)) = field.filter(|_| wire_type == WireType::LengthDelimited && depth > 0) else {
            if skip_field(wire_type, tag, &mut body, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        };
        let length = decode_varint(&mut body).ok();
        let length = length.and_then(|length| usize::try_from(length).ok());
        let Some((inner, rest)) = length.and_then(|length| body.split_at_checked(length)) else {
            break;
        };
        *left = left.checked_sub(field.size)?;
        subtract_size(inner, field, left, depth - 1)?;
        body = rest;
    }
    Some(())
}

static TRACES: MessageType = message::<()>(&[(1, &RESOURCE_SPANS)]);
static RESOURCE_SPANS: MessageType = message::<ResourceSpans>(&[(1, &RESOURCE), (2, &SCOPE_SPANS)]);
static SCOPE_SPANS: MessageType = message::<ScopeSpans>(&[(1, &SCOPE), (2, &SPAN)]);
static SPAN: MessageType = message::<Span>(&[(9, &KEY_VALUE), (11, &EVENT), (13, &LINK)]);
static EVENT: MessageType = message::<Event>(&[(3, &KEY_VALUE)]);
static LINK: MessageType = message::<Link>(&[(4, &KEY_VALUE)]);

static LOGS: MessageType = message::<()>(&[(1, &RESOURCE_LOGS)]);
static RESOURCE_LOGS: MessageType = message::<ResourceLogs>(&[(1, &RESOURCE), (2, &SCOPE_LOGS)]);
static SCOPE_LOGS: MessageType = message::<ScopeLogs>(&[(1, &SCOPE), (2, &LOG_RECORD)]);
static LOG_RECORD: MessageType = message::<LogRecord>(&[(5, &INLINE_VALUE), (6, &KEY_VALUE)]);

static METRICS: MessageType = message::<()>(&[(1, &RESOURCE_METRICS)]);
static RESOURCE_METRICS: MessageType = message::<ResourceMetrics>(&[(1, &RESOURCE), (2, &SCOPE_METRICS)]);
static SCOPE_METRICS: MessageType = message::<ScopeMetrics>(&[(1, &SCOPE), (2, &METRIC)]);
static METRIC: MessageType = message::<Metric>(&[
    (5, &NUMBERS),
    (7, &NUMBERS),
    (9, &HISTOGRAMS),
    (10, &EXPONENTIAL_HISTOGRAMS),
    (11, &SUMMARIES),
    (12, &KEY_VALUE),
]);
static NUMBERS: MessageType = message::<()>(&[(1, &NUMBER)]);
static NUMBER: MessageType = message::<NumberDataPoint>(&[(5, &EXEMPLAR), (7, &KEY_VALUE)]);
static HISTOGRAMS: MessageType = message::<()>(&[(1, &HISTOGRAM)]);
static HISTOGRAM: MessageType = message::<HistogramDataPoint>(&[(8, &EXEMPLAR), (9, &KEY_VALUE)]);
static EXPONENTIAL_HISTOGRAMS: MessageType = message::<()>(&[(1, &EXPONENTIAL_HISTOGRAM)]);
static EXPONENTIAL_HISTOGRAM: MessageType =
    message::<ExponentialHistogramDataPoint>(&[(1, &KEY_VALUE), (11, &EXEMPLAR)]);
static SUMMARIES: MessageType = message::<()>(&[(1, &SUMMARY)]);
static SUMMARY: MessageType = message::<SummaryDataPoint>(&[(6, &QUANTILE), (7, &KEY_VALUE)]);
static QUANTILE: MessageType = message::<ValueAtQuantile>(&[]);
static EXEMPLAR: MessageType = message::<Exemplar>(&[(7, &KEY_VALUE)]);

static RESOURCE: MessageType = message::<()>(&[(1, &KEY_VALUE), (3, &ENTITY)]);
static ENTITY: MessageType = message::<EntityRef>(&[(3, &TEXT), (4, &TEXT)]);
static SCOPE: MessageType = message::<()>(&[(3, &KEY_VALUE)]);
static KEY_VALUE: MessageType = message::<KeyValue>(&[(2, &INLINE_VALUE)]);
static INLINE_VALUE: MessageType = message::<()>(&[(5, &ARRAY), (6, &LIST)]);
static ARRAY: MessageType = message::<()>(&[(1, &VALUE)]);
static VALUE: MessageType = message::<AnyValue>(&[(5, &ARRAY), (6, &LIST)]);
static LIST: MessageType = message::<()>(&[(1, &KEY_VALUE)]);
static TEXT: MessageType = message::<String>(&[]);

const fn message<T>(fields: &'static [(u32, &'static MessageType)]) -> MessageType {
    MessageType {
        size: size_of::<T>(),
        fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{export::Export, samples};

    /// Encodes a message with `inner` as its field `tag`.
    fn field(tag: u32, inner: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        prost::encoding::bytes::encode(tag, &inner.to_vec(), &mut message);
        message
    }

    /// Returns the decoded size of `body`.
    fn size(message_type: &MessageType, body: &[u8]) -> usize {
        let mut left = usize::MAX;
        subtract_size(body, message_type, &mut left, MAX_DEPTH).unwrap();
        usize::MAX - left
    }

    #[test]
    fn many_empty_messages_are_rejected() {
        let spans = field(1, &field(2, &[0x12, 0].repeat(400_000)));
        let attributes = field(1, &field(2, &field(2, &[0x4a, 0].repeat(2_000_000))));
        for body in [spans, attributes] {
            assert!(matches!(
                check_protobuf(Signal::Traces, &body),
                Err(Rejection::TooManyItems)
            ));
        }
        let json = format!("[{}]", "{},".repeat(MAX_OBJECTS + 1));
        assert!(matches!(
            check_json(json.as_bytes()),
            Err(Rejection::TooManyItems)
        ));
    }

    #[test]
    fn every_repeated_message_counts() {
        let attributes = 7 * size_of::<KeyValue>() + size_of::<AnyValue>();
        let resource_and_scope = 2 * attributes + size_of::<EntityRef>() + 2 * size_of::<String>();
        let exemplars = 2 * size_of::<Exemplar>() + attributes;

        let span = size_of::<Span>() + size_of::<Event>() + size_of::<Link>() + 3 * attributes;
        let traces = size_of::<ResourceSpans>() + size_of::<ScopeSpans>() + resource_and_scope + span;
        let record = size_of::<LogRecord>() + attributes;
        let logs = size_of::<ResourceLogs>() + size_of::<ScopeLogs>() + resource_and_scope + record;
        let points = 2 * size_of::<NumberDataPoint>()
            + size_of::<HistogramDataPoint>()
            + size_of::<ExponentialHistogramDataPoint>()
            + 4 * (attributes + exemplars)
            + size_of::<SummaryDataPoint>()
            + size_of::<ValueAtQuantile>()
            + attributes;
        let metrics = size_of::<ResourceMetrics>()
            + size_of::<ScopeMetrics>()
            + resource_and_scope
            + 5 * (size_of::<Metric>() + attributes)
            + points;

        for export in samples::exports("") {
            let (message_type, expected) = match export {
                Export::Traces(_) => (&TRACES, traces),
                Export::Metrics(_) => (&METRICS, metrics),
                Export::Logs(_) => (&LOGS, logs),
            };
            assert_eq!(
                size(message_type, &export.encode()),
                expected,
                "{:?}",
                export.signal()
            );
        }
    }

    #[test]
    fn invalid_messages_are_left_to_the_decoder() {
        for body in [&[0xff; 30][..], &[0x0a], &[0x0a, 0xff], &[0x0b; 1000]] {
            assert!(check_protobuf(Signal::Traces, body).is_ok(), "{body:?}");
        }
    }
}
