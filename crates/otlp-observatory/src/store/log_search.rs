//! Looks for log records, newest first, as [`super::search`] looks for traces.

use std::{collections::HashMap, sync::Arc, time::Instant};

use opentelemetry_proto::tonic::{common::v1::KeyValue, logs::v1::LogRecord};
use prost::Message as _;

use super::{
    filter::{Attribute, Text},
    gated::Gated,
    ids::{SpanId, TraceId},
    intern::Shared,
    logs::{Entry, Logs},
    origin::Origin,
    search::{ANSWER_BYTES, AT_A_TIME, Found, PATIENCE},
};

/// Which records are looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSearch {
    pub(crate) service: Option<String>,
    /// The least severity number.
    pub(crate) severity: Option<u8>,
    pub(crate) text: Option<Text>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) trace: Option<TraceId>,
    pub(crate) span: Option<SpanId>,
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
    pub(crate) before: Option<u64>,
    pub(crate) after: Option<u64>,
    pub(crate) limit: usize,
}

/// A record, taken out.
#[derive(Clone, Debug)]
pub(crate) struct KeptRecord {
    pub(crate) sequence: u64,
    pub(crate) time: u64,
    pub(crate) origin: Origin,
    pub(crate) encoded: Arc<[u8]>,
}

/// Looks for records as `search` says, newest first, as [`super::search::search`] does.
pub(crate) fn search(logs: &Gated<Logs>, search: &LogSearch) -> Found<KeptRecord> {
    let deadline = Instant::now() + PATIENCE;
    let mut entries = Vec::new();
    let mut before = search.before.unwrap_or(u64::MAX);
    let mut bytes = 0;
    loop {
        let logs = logs.read();
        let pause = Instant::now() + AT_A_TIME;
        let mut resources = HashMap::new();
        let mut next = logs.newest_before(search.trace, before);
        while let Some(sequence) = next {
            let Some(entry) = logs
                .get(sequence)
                .filter(|_| search.after.is_none_or(|after| sequence > after))
            else {
                next = None;
                break;
            };
            if entries.len() == search.limit || bytes > ANSWER_BYTES {
                break;
            }
            before = sequence;
            if holds(search, &logs, entry, &mut resources) {
                bytes += entry.encoded.len() + logs.origins.get(entry.origin).len();
                entries.push(KeptRecord {
                    sequence,
                    time: entry.time,
                    origin: logs.origins.get(entry.origin).clone(),
                    encoded: entry.encoded.clone(),
                });
            }
            next = match search.trace {
                Some(_) => Some(entry.previous),
                None => sequence.checked_sub(1),
            };
            if Instant::now() >= pause {
                break;
            }
        }
        if next.is_none() {
            return Found { entries, next };
        }
        if entries.len() == search.limit || bytes > ANSWER_BYTES || Instant::now() >= deadline {
            return Found {
                entries,
                next: Some(before),
            };
        }
    }
}

fn holds(
    search: &LogSearch,
    logs: &Logs,
    entry: &Entry,
    resources: &mut HashMap<Shared, Vec<KeyValue>>,
) -> bool {
    let origin = logs.origins.get(entry.origin);
    let indexed = search.severity.is_none_or(|least| entry.severity >= least)
        && search.from.is_none_or(|from| entry.time >= from)
        && search.to.is_none_or(|to| entry.time <= to)
        && search
            .service
            .as_deref()
            .is_none_or(|service| service == &*origin.service)
        && search.text.as_ref().is_none_or(|text| text.is_in(&entry.encoded));
    if !indexed {
        return false;
    }
    if search.text.is_none() && search.attributes.is_empty() && search.span.is_none() {
        return true;
    }
    let mut is_of_resource =
        |wanted: &Attribute| wanted.is_in(resources.entry(entry.origin).or_insert_with(|| origin.resource()));
    // Told by the encoding, most need not be decoded.
    let may_have = |wanted: &Attribute| wanted.may_be_in(&entry.encoded) || is_of_resource(wanted);
    if !search.attributes.iter().all(may_have) {
        return false;
    }
    let Ok(record) = LogRecord::decode(&*entry.encoded) else {
        return false;
    };
    let is_attribute = |wanted: &Attribute| wanted.is_in(&record.attributes) || is_of_resource(wanted);
    search
        .span
        .is_none_or(|span| SpanId::from_bytes(&record.span_id) == Some(span))
        && search.attributes.iter().all(is_attribute)
        && search
            .text
            .as_ref()
            .is_none_or(|text| is_in_record(text, &record))
}

/// Whether `text` is in the record's body, names or attributes.
fn is_in_record(text: &Text, record: &LogRecord) -> bool {
    record.body.as_ref().is_some_and(|body| text.is_in_value(body))
        || text.is_in(record.event_name.as_bytes())
        || text.is_in(record.severity_text.as_bytes())
        || text.is_in_attributes(&record.attributes)
}
