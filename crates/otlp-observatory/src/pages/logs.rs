//! `/logs`: search for log records, newest first.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue},
    logs::v1::LogRecord,
};
use prost::Message as _;
use serde::Serialize;

use super::{
    error::PageError,
    explorer::Explorer,
    json::{Attributes, Value},
    parameters::Parameters,
};
use crate::store::{LogSearch, SpanId, StoredRecord, Subject, TraceId, UnixNano};

/// Levels with their lowest severity number (OpenTelemetry logs data model).
const LEVELS: [(&str, u8); 6] = [
    ("trace", 1),
    ("debug", 5),
    ("info", 9),
    ("warn", 13),
    ("error", 17),
    ("fatal", 21),
];

#[derive(Serialize)]
pub(super) struct List {
    next: Option<String>,
    logs: Vec<Record>,
}

/// JSON form of a log record.
#[derive(Serialize)]
pub(super) struct Record {
    sequence: u64,
    time_unix_nano: UnixNano,
    service: Arc<str>,
    scope: Arc<str>,
    level: &'static str,
    severity_text: String,
    body: Value<AnyValue>,
    attributes: Attributes<Vec<KeyValue>>,
    resource: Attributes<Vec<KeyValue>>,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    event_name: String,
}

pub(super) fn list(explorer: &Explorer, parameters: &mut Parameters) -> Result<List, PageError> {
    let search = LogSearch {
        query: parameters.query(Subject::Records)?,
        service: parameters.text("service")?,
        severity: parameters.parsed(
            "level",
            "must be `trace`, `debug`, `info`, `warn`, `error` or `fatal`",
            least_severity,
        )?,
        text: parameters.search("text")?,
        attributes: parameters.attributes()?,
        trace: parameters.trace_id()?,
        span: parameters.span_id()?,
        from: parameters.timestamp("from")?,
        to: parameters.timestamp("to")?,
        before: parameters.cursor("before")?,
        above: None,
        after: parameters.cursor("after")?,
        limit: parameters.limit()?,
    };
    parameters.finish()?;
    let found = explorer.search_logs(&search);
    Ok(List {
        next: found.next.map(|next| next.to_string()),
        logs: found.entries.into_iter().map(Record::new).collect(),
    })
}

impl Record {
    /// Decodes a stored record.
    pub(super) fn new(stored: StoredRecord) -> Self {
        let record = LogRecord::decode(&*stored.encoded).unwrap_or_default();
        Self {
            sequence: stored.sequence,
            time_unix_nano: UnixNano(stored.time),
            resource: Attributes(stored.source.resource()),
            service: stored.source.service,
            scope: stored.source.scope,
            level: level(record.severity_number),
            severity_text: record.severity_text,
            body: Value(record.body),
            attributes: Attributes(record.attributes),
            trace_id: TraceId::from_bytes(&record.trace_id),
            span_id: SpanId::from_bytes(&record.span_id),
            event_name: record.event_name,
        }
    }
}

fn least_severity(level: &str) -> Option<u8> {
    let (_, least) = LEVELS.iter().find(|(name, _)| *name == level)?;
    Some(*least)
}

fn level(severity: i32) -> &'static str {
    let level = LEVELS
        .iter()
        .rev()
        .find(|(_, least)| severity >= i32::from(*least));
    level.map_or("unspecified", |(level, _)| level)
}
