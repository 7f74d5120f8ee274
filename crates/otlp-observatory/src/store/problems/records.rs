//! Problems in log records.

use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};
use prost::Message as _;

use super::{
    errors::{Error, is_about_pool, without_numbers},
    groups::{Groups, Kind, Occurrence},
};
use crate::store::{
    ids::SpanId,
    logs::{Entry, Logs},
};

/// Lowest severity number of an error (OpenTelemetry logs data model).
const ERROR: u8 = 17;

/// Lowest severity number of a warning.
const WARNING: u8 = 13;

/// Inspects a record: errors without a failed span, and warnings about pools of connections.
pub(super) fn inspect(logs: &Logs, entry: &Entry, groups: &mut Groups) {
    if entry.severity < WARNING {
        return;
    }
    let record = LogRecord::decode(&*entry.encoded).unwrap_or_default();
    let body = match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => &record.event_name,
    };
    let error = Error::of_record(&record);
    let kind = if is_about_pool(body) || error.kind() == Kind::PoolExhausted {
        Kind::PoolExhausted
    } else if entry.severity >= ERROR && !entry.trace.is_some_and(|trace| groups.has_failed(trace)) {
        Kind::ErrorLog
    } else {
        return;
    };
    let message = without_numbers(body);
    let subject = match (&*error.kind, &*error.place) {
        ("", "") => message,
        ("", place) => format!("{message} in {place}"),
        (kind, "") => format!("{kind}: {message}"),
        (kind, place) => format!("{kind}: {message} in {place}"),
    };
    groups.add(Occurrence {
        kind,
        service: logs.sources.get(entry.source).service.clone(),
        subject,
        count: 1,
        time: entry.time,
        total: 0,
        max: 0,
        trace: entry.trace,
        span: SpanId::from_bytes(&record.span_id),
    });
}
