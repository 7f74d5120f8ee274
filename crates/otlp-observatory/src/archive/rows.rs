//! Rows of the archive: the spans of a trace in one request, a log record, or the metrics of a request. Each row is an OTLP
//! export request of its own.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    trace::v1::{Span, Status, status::StatusCode},
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

use super::texts::Texts;
use crate::export::{Export, Signal};

/// Size after which a piece ends, in bytes.
const PIECE: usize = 1 << 20;

/// Row to be written.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) signal: Signal,
    /// Time of arrival.
    pub(super) arrived: u64,
    /// Start of the earliest span, or time of the record; the time of arrival if it is unset.
    pub(super) time: u64,
    pub(super) trace: Option<Vec<u8>>,
    /// Whether a span failed.
    pub(super) failed: bool,
    /// Duration of the longest span.
    pub(super) longest: u64,
    /// Start of the latest span, or `time`.
    pub(super) latest: u64,
    /// Grams of the texts.
    pub(super) grams: Vec<u32>,
    /// Export request in OTLP's protobuf encoding.
    pub(super) body: Vec<u8>,
}

impl Row {
    /// Returns the size in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.body.len() + size_of_val(&*self.grams)
    }
}

/// Calls `write` with pieces of the rows of an export that arrived at `now`. Each row contains the resource, so the rows
/// may be much larger than the request.
pub(super) fn in_pieces(export: &Export, now: u64, mut write: impl FnMut(Vec<Row>)) {
    let mut rows = Vec::new();
    let mut bytes = 0;
    for_each(export, now, |row| {
        bytes += row.bytes();
        rows.push(row);
        if bytes > PIECE {
            bytes = 0;
            write(std::mem::take(&mut rows));
        }
    });
    if !rows.is_empty() {
        write(rows);
    }
}

/// Returns the rows of an export that arrived at `now`.
#[cfg(test)]
pub(super) fn of(export: &Export, now: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for_each(export, now, |row| rows.push(row));
    rows
}

fn for_each(export: &Export, now: u64, mut visit: impl FnMut(Row)) {
    let mut texts = Texts::new();
    match export {
        Export::Traces(request) => {
            for group in &request.resource_spans {
                let resource = encoded(group.resource.as_ref());
                for scope_group in &group.scope_spans {
                    let scope = encoded(scope_group.scope.as_ref());
                    texts.add_source(group.resource.as_ref(), scope_group.scope.as_ref());
                    let of_source = texts.take();
                    let mut by_trace: HashMap<&[u8], Vec<&Span>> = HashMap::new();
                    for span in &scope_group.spans {
                        by_trace.entry(&span.trace_id).or_default().push(span);
                    }
                    for (trace, spans) in by_trace {
                        texts.add_all(&of_source);
                        visit(spans_of(trace, &spans, now, &mut texts, &resource, &scope));
                    }
                }
            }
        }
        Export::Logs(request) => {
            for group in &request.resource_logs {
                let resource = encoded(group.resource.as_ref());
                for scope_group in &group.scope_logs {
                    let scope = encoded(scope_group.scope.as_ref());
                    texts.add_source(group.resource.as_ref(), scope_group.scope.as_ref());
                    let of_source = texts.take();
                    for record in &scope_group.log_records {
                        let times = [record.time_unix_nano, record.observed_time_unix_nano];
                        let mut records = Vec::new();
                        field(2, &record.encode_to_vec(), &mut records);
                        texts.add_all(&of_source);
                        texts.add_record(record);
                        visit(Row {
                            signal: Signal::Logs,
                            arrived: now,
                            time: times.into_iter().find(|&time| time != 0).unwrap_or(now),
                            trace: (!record.trace_id.is_empty()).then(|| record.trace_id.clone()),
                            failed: false,
                            longest: 0,
                            latest: 0,
                            grams: texts.take(),
                            body: request_of(&resource, &scope, &records),
                        });
                    }
                }
            }
        }
        Export::Metrics(request) => visit(Row {
            signal: Signal::Metrics,
            arrived: now,
            time: now,
            trace: None,
            failed: false,
            longest: 0,
            latest: 0,
            grams: Vec::new(),
            body: request.encode_to_vec(),
        }),
    }
}

/// Returns the row of the spans of a trace.
fn spans_of(
    trace: &[u8],
    spans: &[&Span],
    now: u64,
    texts: &mut Texts,
    resource: &[u8],
    scope: &[u8],
) -> Row {
    let mut encoded = Vec::new();
    for span in spans {
        field(2, &span.encode_to_vec(), &mut encoded);
        texts.add_span(span);
    }
    let starts = spans.iter().map(|span| span.start_time_unix_nano);
    let durations = spans.iter().map(|span| match span.start_time_unix_nano {
        0 => 0,
        start => span.end_time_unix_nano.saturating_sub(start),
    });
    let is_error = |status: &Status| status.code() == StatusCode::Error;
    Row {
        signal: Signal::Traces,
        arrived: now,
        time: starts.clone().filter(|&start| start != 0).min().unwrap_or(now),
        trace: (!trace.is_empty()).then(|| trace.to_vec()),
        failed: spans
            .iter()
            .any(|span| span.status.as_ref().is_some_and(is_error)),
        longest: durations.max().unwrap_or(0),
        latest: starts.max().filter(|&latest| latest != 0).unwrap_or(now),
        grams: texts.take(),
        body: request_of(resource, scope, &encoded),
    }
}

/// Decodes the body of a row.
pub(super) fn decode(signal: Signal, body: &[u8]) -> Option<Export> {
    Some(match signal {
        Signal::Traces => Export::Traces(ExportTraceServiceRequest::decode(body).ok()?),
        Signal::Logs => Export::Logs(ExportLogsServiceRequest::decode(body).ok()?),
        Signal::Metrics => Export::Metrics(ExportMetricsServiceRequest::decode(body).ok()?),
    })
}

/// Converts a time to SQLite's signed integers.
pub(super) fn stored(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn encoded(message: Option<&impl Message>) -> Vec<u8> {
    message.map(Message::encode_to_vec).unwrap_or_default()
}

/// Encodes a request with one resource and one scope. The field numbers of spans and log records are the same.
fn request_of(resource: &[u8], scope: &[u8], items: &[u8]) -> Vec<u8> {
    let mut scope_group = Vec::with_capacity(scope.len() + items.len() + 16);
    field(1, scope, &mut scope_group);
    scope_group.extend_from_slice(items);
    let mut group = Vec::with_capacity(resource.len() + scope_group.len() + 16);
    field(1, resource, &mut group);
    field(2, &scope_group, &mut group);
    let mut request = Vec::with_capacity(group.len() + 16);
    field(1, &group, &mut request);
    request
}

fn field(number: u32, content: &[u8], buffer: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, buffer);
    encode_varint(content.len() as u64, buffer);
    buffer.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        samples,
        store::fixture::{record, records},
    };

    #[test]
    fn rows_contain_all_items_of_an_export() {
        for export in samples::exports("") {
            let rows = of(&export, 5);
            let items = rows
                .iter()
                .map(|row| decode(row.signal, &row.body).expect("a request").items());
            assert_eq!(items.sum::<usize>(), export.items());
        }
    }

    #[test]
    fn rows_with_a_large_resource_are_in_several_pieces() {
        let logs = (0..50).map(|number| record(number, 9, "done")).collect();
        let export = records(&"x".repeat(100_000), logs);
        let mut pieces = Vec::new();
        in_pieces(&export, 5, |rows| pieces.push(rows));
        let bytes = |rows: &[Row]| rows.iter().map(Row::bytes).sum::<usize>();
        assert!(pieces.len() > 1);
        assert!(pieces.iter().all(|rows| bytes(rows) < 2 * PIECE));
        assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), 50);
    }
}
