//! Rows of the archive: the spans of a trace in one request, a log record, or the metrics of a request. Each row is an OTLP
//! export request of its own.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

use crate::export::{Export, Signal};

/// Row to be written.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) signal: Signal,
    /// Time of arrival.
    pub(super) arrived: u64,
    /// Start of the earliest span, or time of the record; the time of arrival if it is unset.
    pub(super) time: u64,
    pub(super) trace: Option<Vec<u8>>,
    /// Export request in OTLP's protobuf encoding.
    pub(super) body: Vec<u8>,
}

/// Returns the rows of an export that arrived at `now`.
pub(super) fn of(export: &Export, now: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |signal, time, trace: &[u8], body| {
        rows.push(Row {
            signal,
            arrived: now,
            time,
            trace: (!trace.is_empty()).then(|| trace.to_vec()),
            body,
        });
    };
    match export {
        Export::Traces(request) => {
            for group in &request.resource_spans {
                let resource = encoded(group.resource.as_ref());
                for scope_group in &group.scope_spans {
                    let scope = encoded(scope_group.scope.as_ref());
                    let mut by_trace: HashMap<&[u8], (u64, Vec<u8>)> = HashMap::new();
                    for span in &scope_group.spans {
                        let (time, spans) = by_trace.entry(&span.trace_id).or_insert((u64::MAX, Vec::new()));
                        *time = match span.start_time_unix_nano {
                            0 => *time,
                            start => start.min(*time),
                        };
                        field(2, &span.encode_to_vec(), spans);
                    }
                    for (trace, (time, spans)) in by_trace {
                        let time = if time == u64::MAX { now } else { time };
                        add(Signal::Traces, time, trace, request_of(&resource, &scope, &spans));
                    }
                }
            }
        }
        Export::Logs(request) => {
            for group in &request.resource_logs {
                let resource = encoded(group.resource.as_ref());
                for scope_group in &group.scope_logs {
                    let scope = encoded(scope_group.scope.as_ref());
                    for record in &scope_group.log_records {
                        let times = [record.time_unix_nano, record.observed_time_unix_nano];
                        let time = times.into_iter().find(|&time| time != 0).unwrap_or(now);
                        let mut records = Vec::new();
                        field(2, &record.encode_to_vec(), &mut records);
                        let body = request_of(&resource, &scope, &records);
                        add(Signal::Logs, time, &record.trace_id, body);
                    }
                }
            }
        }
        Export::Metrics(request) => add(Signal::Metrics, now, &[], request.encode_to_vec()),
    }
    rows
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
    use crate::samples;

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
}
