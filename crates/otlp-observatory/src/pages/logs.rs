//! `/logs`: log records that were looked for, newest first.

use opentelemetry_proto::tonic::{common::v1::KeyValue, logs::v1::LogRecord};
use prost::Message as _;
use serde::Serialize;

use super::{
    Explorer, Page, Refusal,
    answer::json,
    json::{Attributes, Value},
    parameters::Parameters,
};
use crate::store::{LogSearch, SpanId, StoredRecord, TraceId, UnixNano};

/// Levels by their least severity number (OpenTelemetry's logs data model).
const LEVELS: [(&str, u8); 6] = [
    ("trace", 1),
    ("debug", 5),
    ("info", 9),
    ("warn", 13),
    ("error", 17),
    ("fatal", 21),
];

pub(super) const LIST: Page = Page {
    takes: &[
        "service",
        "level",
        "text",
        "attribute",
        "trace_id",
        "span_id",
        "from",
        "to",
        "limit",
        "before",
        "after",
    ],
    by_the_clock: false,
    answer: list,
};

#[derive(Serialize)]
struct List<'a> {
    next: Option<String>,
    logs: Vec<Record<'a>>,
}

/// A record as it is shown.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    sequence: u64,
    time_unix_nano: UnixNano,
    service: &'a str,
    scope: &'a str,
    level: &'static str,
    severity_text: &'a str,
    body: Value<'a>,
    attributes: Attributes<'a>,
    resource: Attributes<'a>,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    event_name: &'a str,
}

/// A record, decoded.
pub(super) struct DecodedRecord<'a> {
    kept: &'a StoredRecord,
    record: LogRecord,
    resource: Vec<KeyValue>,
}

fn list(explorer: &Explorer, parameters: &Parameters) -> Result<Vec<u8>, Refusal> {
    let search = LogSearch {
        service: parameters.text("service").map(str::to_owned),
        severity: parameters.choice(
            "level",
            "must be `trace`, `debug`, `info`, `warn`, `error` or `fatal`",
            &LEVELS,
        )?,
        text: parameters.search("text"),
        attributes: parameters.attributes(),
        trace: parameters.trace_id()?,
        span: parameters.span_id()?,
        from: parameters.timestamp("from")?,
        to: parameters.timestamp("to")?,
        before: parameters.cursor("before")?,
        after: parameters.cursor("after")?,
        limit: parameters.limit()?,
    };
    let generation = explorer.store.generation();
    let found = explorer.store.search_logs(&search);
    let records = records(&found.entries);
    json(
        generation,
        List {
            next: found.next.map(|next| next.to_string()),
            logs: records.iter().map(DecodedRecord::shown).collect(),
        },
    )
}

/// Decodes what was taken out.
pub(super) fn records(kept: &[StoredRecord]) -> Vec<DecodedRecord<'_>> {
    let decoded = kept.iter().map(|kept| DecodedRecord {
        kept,
        record: LogRecord::decode(&*kept.encoded).unwrap_or_default(),
        resource: kept.source.resource(),
    });
    decoded.collect()
}

impl DecodedRecord<'_> {
    pub(super) fn shown(&self) -> Record<'_> {
        let Self {
            kept,
            record,
            resource,
        } = self;
        Record {
            sequence: kept.sequence,
            time_unix_nano: UnixNano(kept.time),
            service: &kept.source.service,
            scope: &kept.source.scope,
            level: level(record.severity_number),
            severity_text: &record.severity_text,
            body: Value(record.body.as_ref()),
            attributes: Attributes(&record.attributes),
            resource: Attributes(resource),
            trace_id: TraceId::from_bytes(&record.trace_id),
            span_id: SpanId::from_bytes(&record.span_id),
            event_name: &record.event_name,
        }
    }
}

fn level(severity: i32) -> &'static str {
    let level = LEVELS
        .iter()
        .rev()
        .find(|(_, least)| severity >= i32::from(*least));
    level.map_or("unspecified", |(level, _)| level)
}
