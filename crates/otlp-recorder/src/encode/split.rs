//! Splits an encoded request in two when a receiver rejects its size. The requests of all signals have the same
//! structure: groups by resource contain groups by scope, which contain the entries.

use std::ops::Range;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use prost::Message;
use prost::bytes::Bytes;

use super::fields::{export_request, resource_group, scope_group};
use super::wire::{Writer, fields_of};
use crate::points::{metrics_of, visit_points};
use crate::signal::Signal;

/// An encoded request and the number of its spans, data points or log records.
pub(crate) type Part = (Bytes, u64);

/// Splits a request with `items` items into two with about the same number of entries, or of data points if the only
/// entry is a metric. Returns `None` if there is nothing to split or the request is malformed.
pub(crate) fn halves(signal: Signal, request: &[u8], items: u64) -> Option<[Part; 2]> {
    let entries = count_entries(request)?;
    if entries < 2 {
        return match signal {
            Signal::Metrics => halves_of_points(request),
            Signal::Traces | Signal::Logs => None,
        };
    }
    let first = entries / 2;
    let [one, two] = [0..first, first..entries].map(|kept| with_entries(request, kept));
    let (one, two): (Bytes, Bytes) = (one?.into(), two?.into());
    let (of_one, of_two) = match signal {
        Signal::Metrics => (count_points(&one)?, count_points(&two)?),
        Signal::Traces | Signal::Logs => (first as u64, items.saturating_sub(first as u64)),
    };
    Some([(one, of_one), (two, of_two)])
}

fn count_entries(request: &[u8]) -> Option<usize> {
    let mut count = 0;
    visit(request, export_request::RESOURCE_GROUPS, |group| {
        visit(group, resource_group::SCOPE_GROUPS, |scope| {
            visit(scope, scope_group::ENTRIES, |_| {
                count += 1;
                Some(())
            })
        })
    })?;
    Some(count)
}

/// Calls `each` with the content of every field `number`.
fn visit(message: &[u8], number: u32, mut each: impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    for field in fields_of(message) {
        let field = field?;
        if field.number == number {
            each(&message[field.content])?;
        }
    }
    Some(())
}

/// Returns the request with the entries whose indices are in `kept`.
fn with_entries(request: &[u8], kept: Range<usize>) -> Option<Vec<u8>> {
    let mut index = 0;
    filtered(request, export_request::RESOURCE_GROUPS, &mut |group| {
        filtered(group, resource_group::SCOPE_GROUPS, &mut |scope| {
            filtered(scope, scope_group::ENTRIES, &mut |entry| {
                index += 1;
                Some(kept.contains(&(index - 1)).then(|| entry.to_vec()))
            })
        })
    })?
}

/// Content of a message. The outer `None` stands for a malformed message, the inner one for an empty result.
type Filtered = Option<Option<Vec<u8>>>;

/// Replaces the content of each field `number` with the result of `each`, and keeps other fields. The result is empty
/// if no field `number` is left.
fn filtered(message: &[u8], number: u32, each: &mut dyn FnMut(&[u8]) -> Filtered) -> Filtered {
    let mut writer = Writer::default();
    let mut is_empty = true;
    for field in fields_of(message) {
        let field = field?;
        if field.number != number {
            writer.append(&message[field.whole]);
        } else if let Some(content) = each(&message[field.content])? {
            writer.bytes_always(number, &content);
            is_empty = false;
        }
    }
    Some((!is_empty).then(|| writer.into_bytes()))
}

fn count_points(request: &[u8]) -> Option<u64> {
    let mut request = ExportMetricsServiceRequest::decode(request).ok()?;
    let mut points = 0;
    for metric in metrics_of(&mut request) {
        visit_points(metric, |_, _| points += 1);
    }
    Some(points)
}

/// Splits the points of the only metric of a request.
fn halves_of_points(request: &[u8]) -> Option<[Part; 2]> {
    let mut one = ExportMetricsServiceRequest::decode(request).ok()?;
    let mut two = one.clone();
    let (of_one, of_two) = (
        keep_points(metrics_of(&mut one).next()?, false),
        keep_points(metrics_of(&mut two).next()?, true),
    );
    let encoded = |request: &ExportMetricsServiceRequest| Bytes::from(request.encode_to_vec());
    (of_one > 0 && of_two > 0).then(|| [(encoded(&one), of_one), (encoded(&two), of_two)])
}

/// Keeps the first or the second half of the points; returns their number.
fn keep_points(metric: &mut Metric, second: bool) -> u64 {
    fn keep<P>(points: &mut Vec<P>, second: bool) -> u64 {
        let rest = points.split_off(points.len() / 2);
        if second {
            *points = rest;
        }
        points.len() as u64
    }
    match &mut metric.data {
        Some(Data::Gauge(gauge)) => keep(&mut gauge.data_points, second),
        Some(Data::Sum(sum)) => keep(&mut sum.data_points, second),
        Some(Data::Histogram(histogram)) => keep(&mut histogram.data_points, second),
        Some(Data::ExponentialHistogram(histogram)) => keep(&mut histogram.data_points, second),
        Some(Data::Summary(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

    use super::*;

    fn request(scopes: &[&[&str]]) -> ExportTraceServiceRequest {
        let span = |name: &&str| Span {
            name: (*name).to_owned(),
            ..Span::default()
        };
        let scope = |spans: &&[&str]| ScopeSpans {
            schema_url: "scope".to_owned(),
            spans: spans.iter().map(span).collect(),
            ..ScopeSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    dropped_attributes_count: 7,
                    ..Resource::default()
                }),
                scope_spans: scopes.iter().map(scope).collect(),
                schema_url: "resource".to_owned(),
            }],
        }
    }

    #[test]
    fn a_request_is_split_between_entries_and_keeps_the_rest() {
        let encoded = request(&[&["a", "b", "c"], &["d", "e"]]).encode_to_vec();
        let [(one, of_one), (two, of_two)] = halves(Signal::Traces, &encoded, 5).unwrap();
        assert_eq!((of_one, of_two), (2, 3));
        let decoded = |bytes| ExportTraceServiceRequest::decode(bytes).unwrap();
        assert_eq!(decoded(one), request(&[&["a", "b"]]));
        assert_eq!(decoded(two), request(&[&["c"], &["d", "e"]]));
        let single = request(&[&["a"]]).encode_to_vec();
        assert!(halves(Signal::Traces, &single, 1).is_none());
        assert!(halves(Signal::Traces, b"\xff\xff", 9).is_none());
    }

    #[test]
    fn metrics_are_split_between_metrics_and_then_between_points() {
        let metric = |name: &str, points: usize| Metric {
            name: name.to_owned(),
            data: Some(Data::Sum(Sum {
                data_points: vec![NumberDataPoint::default(); points],
                ..Sum::default()
            })),
            ..Metric::default()
        };
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                scope_metrics: vec![ScopeMetrics {
                    metrics: vec![metric("a", 3), metric("b", 1)],
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        let [(one, of_one), (two, of_two)] = halves(Signal::Metrics, &request.encode_to_vec(), 4).unwrap();
        assert_eq!((of_one, of_two), (3, 1));
        let [(_, fewer), (_, more)] = halves(Signal::Metrics, &one, 3).unwrap();
        assert_eq!((fewer, more), (1, 2));
        assert!(halves(Signal::Metrics, &two, 1).is_none());
    }
}
