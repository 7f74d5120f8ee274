//! What a request will take in memory, before it is decoded: two bytes can stand for a span of hundreds, so a limit on
//! bytes alone would let 16 KiB of gzip become gigabytes.

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

use super::refusal::Refusal;
use crate::export::Signal;

/// What the entries of a request may take beside their texts, in bytes. The largest honest requests take half of it.
const MAX_WEIGHT: usize = 64 << 20;

/// How many objects a request in JSON may have. Each is an entry of some hundred bytes at most; that braces in texts
/// count too does no harm.
const MAX_OBJECTS: usize = 600_000;

/// What a message takes, and which of its fields are messages, or texts in a list.
struct Shape {
    /// Nothing where it is part of another one's size.
    size: usize,
    parts: &'static [(u32, &'static Shape)],
}

/// # Errors
/// [`Refusal::TooMany`]
pub(super) fn check_json(body: &[u8]) -> Result<(), Refusal> {
    match memchr::memchr_iter(b'{', body).count() > MAX_OBJECTS {
        true => Err(Refusal::TooMany),
        false => Ok(()),
    }
}

/// # Errors
/// [`Refusal::TooMany`]. A body that cannot be decoded is none: the decoder says what is wrong with it, and stops where
/// this did.
pub(super) fn check_protobuf(signal: Signal, body: &[u8]) -> Result<(), Refusal> {
    let shape = match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    };
    let mut left = MAX_WEIGHT;
    weigh(body, shape, &mut left, MAX_DEPTH).ok_or(Refusal::TooMany)
}

/// The decoder allows this many messages inside each other.
const MAX_DEPTH: u32 = 100;

/// Takes what `body` weighs off `left`; `None` when it is not enough.
fn weigh(mut body: &[u8], shape: &Shape, left: &mut usize, depth: u32) -> Option<()> {
    while let Ok((tag, wire_type)) = decode_key(&mut body) {
        let part = shape.parts.iter().find(|(part, _)| *part == tag);
        match part {
            Some((_, part)) if wire_type == WireType::LengthDelimited && depth > 0 => {
                let Some(length) = decode_varint(&mut body)
                    .ok()
                    .and_then(|length| length.try_into().ok())
                else {
                    return Some(());
                };
                let Some((inner, rest)) = body.split_at_checked(length) else {
                    return Some(());
                };
                *left = left.checked_sub(part.size)?;
                weigh(inner, part, left, depth - 1)?;
                body = rest;
            }
            _ => {
                if skip_field(wire_type, tag, &mut body, DecodeContext::default()).is_err() {
                    return Some(());
                }
            }
        }
    }
    Some(())
}

static TRACES: Shape = of::<()>(&[(1, &RESOURCE_SPANS)]);
static RESOURCE_SPANS: Shape = of::<ResourceSpans>(&[(1, &RESOURCE), (2, &SCOPE_SPANS)]);
static SCOPE_SPANS: Shape = of::<ScopeSpans>(&[(1, &SCOPE), (2, &SPAN)]);
static SPAN: Shape = of::<Span>(&[(9, &KEY_VALUE), (11, &EVENT), (13, &LINK)]);
static EVENT: Shape = of::<Event>(&[(3, &KEY_VALUE)]);
static LINK: Shape = of::<Link>(&[(4, &KEY_VALUE)]);

static LOGS: Shape = of::<()>(&[(1, &RESOURCE_LOGS)]);
static RESOURCE_LOGS: Shape = of::<ResourceLogs>(&[(1, &RESOURCE), (2, &SCOPE_LOGS)]);
static SCOPE_LOGS: Shape = of::<ScopeLogs>(&[(1, &SCOPE), (2, &LOG_RECORD)]);
static LOG_RECORD: Shape = of::<LogRecord>(&[(5, &OWN_VALUE), (6, &KEY_VALUE)]);

static METRICS: Shape = of::<()>(&[(1, &RESOURCE_METRICS)]);
static RESOURCE_METRICS: Shape = of::<ResourceMetrics>(&[(1, &RESOURCE), (2, &SCOPE_METRICS)]);
static SCOPE_METRICS: Shape = of::<ScopeMetrics>(&[(1, &SCOPE), (2, &METRIC)]);
static METRIC: Shape = of::<Metric>(&[
    (5, &NUMBERS),
    (7, &NUMBERS),
    (9, &HISTOGRAMS),
    (10, &EXPONENTIAL_HISTOGRAMS),
    (11, &SUMMARIES),
    (12, &KEY_VALUE),
]);
static NUMBERS: Shape = of::<()>(&[(1, &NUMBER)]);
static NUMBER: Shape = of::<NumberDataPoint>(&[(5, &EXEMPLAR), (7, &KEY_VALUE)]);
static HISTOGRAMS: Shape = of::<()>(&[(1, &HISTOGRAM)]);
static HISTOGRAM: Shape = of::<HistogramDataPoint>(&[(8, &EXEMPLAR), (9, &KEY_VALUE)]);
static EXPONENTIAL_HISTOGRAMS: Shape = of::<()>(&[(1, &EXPONENTIAL_HISTOGRAM)]);
static EXPONENTIAL_HISTOGRAM: Shape =
    of::<ExponentialHistogramDataPoint>(&[(1, &KEY_VALUE), (11, &EXEMPLAR)]);
static SUMMARIES: Shape = of::<()>(&[(1, &SUMMARY)]);
static SUMMARY: Shape = of::<SummaryDataPoint>(&[(6, &QUANTILE), (7, &KEY_VALUE)]);
static QUANTILE: Shape = of::<ValueAtQuantile>(&[]);
static EXEMPLAR: Shape = of::<Exemplar>(&[(7, &KEY_VALUE)]);

static RESOURCE: Shape = of::<()>(&[(1, &KEY_VALUE), (3, &ENTITY)]);
static ENTITY: Shape = of::<EntityRef>(&[(3, &TEXT), (4, &TEXT)]);
static SCOPE: Shape = of::<()>(&[(3, &KEY_VALUE)]);
static KEY_VALUE: Shape = of::<KeyValue>(&[(2, &OWN_VALUE)]);
static OWN_VALUE: Shape = of::<()>(&[(5, &ARRAY), (6, &LIST)]);
static ARRAY: Shape = of::<()>(&[(1, &VALUE)]);
static VALUE: Shape = of::<AnyValue>(&[(5, &ARRAY), (6, &LIST)]);
static LIST: Shape = of::<()>(&[(1, &KEY_VALUE)]);
static TEXT: Shape = of::<String>(&[]);

const fn of<T>(parts: &'static [(u32, &'static Shape)]) -> Shape {
    Shape {
        size: size_of::<T>(),
        parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{export::Export, samples};

    /// A message with `inner` as its field `tag`.
    fn inside(tag: u32, inner: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        prost::encoding::bytes::encode(tag, &inner.to_vec(), &mut message);
        message
    }

    /// What `body` weighs.
    fn weight(shape: &Shape, body: &[u8]) -> usize {
        let mut left = usize::MAX;
        weigh(body, shape, &mut left, MAX_DEPTH).unwrap();
        usize::MAX - left
    }

    #[test]
    fn many_bytes_of_nothing_are_too_many() {
        let spans = inside(1, &inside(2, &[0x12, 0].repeat(400_000)));
        let attributes = inside(1, &inside(2, &inside(2, &[0x4a, 0].repeat(2_000_000))));
        for body in [spans, attributes] {
            assert!(matches!(
                check_protobuf(Signal::Traces, &body),
                Err(Refusal::TooMany)
            ));
        }
        let json = format!("[{}]", "{},".repeat(MAX_OBJECTS + 1));
        assert!(matches!(check_json(json.as_bytes()), Err(Refusal::TooMany)));
    }

    #[test]
    fn every_list_of_messages_counts() {
        let attributes = 7 * size_of::<KeyValue>() + size_of::<AnyValue>();
        let origin = 2 * attributes + size_of::<EntityRef>() + 2 * size_of::<String>();
        let exemplars = 2 * size_of::<Exemplar>() + attributes;

        let span = size_of::<Span>() + size_of::<Event>() + size_of::<Link>() + 3 * attributes;
        let traces = size_of::<ResourceSpans>() + size_of::<ScopeSpans>() + origin + span;
        let record = size_of::<LogRecord>() + attributes;
        let logs = size_of::<ResourceLogs>() + size_of::<ScopeLogs>() + origin + record;
        let points = 2 * size_of::<NumberDataPoint>()
            + size_of::<HistogramDataPoint>()
            + size_of::<ExponentialHistogramDataPoint>()
            + 4 * (attributes + exemplars)
            + size_of::<SummaryDataPoint>()
            + size_of::<ValueAtQuantile>()
            + attributes;
        let metrics = size_of::<ResourceMetrics>()
            + size_of::<ScopeMetrics>()
            + origin
            + 5 * (size_of::<Metric>() + attributes)
            + points;

        for export in samples::exports("") {
            let (shape, expected) = match export {
                Export::Traces(_) => (&TRACES, traces),
                Export::Metrics(_) => (&METRICS, metrics),
                Export::Logs(_) => (&LOGS, logs),
            };
            assert_eq!(weight(shape, &export.encode()), expected, "{:?}", export.signal());
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_left_to_the_decoder() {
        for body in [&[0xff; 30][..], &[0x0a], &[0x0a, 0xff], &[0x0b; 1000]] {
            assert!(check_protobuf(Signal::Traces, body).is_ok(), "{body:?}");
        }
    }
}
