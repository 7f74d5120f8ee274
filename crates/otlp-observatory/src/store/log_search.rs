//! Searches log records, newest first.

use std::{collections::HashMap, sync::Arc};

use opentelemetry_proto::tonic::{common::v1::KeyValue, logs::v1::LogRecord};
use prost::Message as _;

use super::{
    condition::Attribute,
    fair_lock::FairLock,
    filter::Text,
    ids::{SpanId, TraceId},
    intern::InternId,
    logs::{Entry, Logs},
    position::TimePosition,
    query::{Query, RecordMatcher},
    search::SearchPage,
    source::Source,
};
#[cfg(feature = "keep")]
use super::{grams, hint::Hint};

/// Filters for log records; a record must match all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSearch {
    pub(crate) service: Option<String>,
    /// Minimum severity number.
    pub(crate) severity: Option<u8>,
    pub(crate) text: Option<Text>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) query: Option<Query>,
    pub(crate) trace: Option<TraceId>,
    pub(crate) span: Option<SpanId>,
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
    /// Upper bound of the position, exclusive.
    pub(crate) before: Option<TimePosition>,
    /// Lower bound of the time, exclusive.
    pub(crate) above: Option<u64>,
    /// Lower bound of the sequence number, exclusive: only records that arrived later match.
    pub(crate) after: Option<u64>,
    pub(crate) limit: usize,
}

#[cfg(feature = "keep")]
impl LogSearch {
    /// Returns the necessary conditions of the search.
    pub(crate) fn hint(&self) -> Hint {
        let mut hint = Hint {
            trace: self.trace,
            ..Hint::default()
        };
        let mut add = |gram| hint.grams.push(gram);
        if let Some(service) = &self.service {
            grams::of_whole(service.as_bytes(), &mut add);
        }
        if let Some(severity) = self.severity {
            grams::of_severity(severity, &mut add);
        }
        if let Some(text) = &self.text {
            text.grams(&mut add);
        }
        for attribute in &self.attributes {
            attribute.grams(&mut add);
        }
        if let Some(query) = &self.query {
            query.hint(&mut hint);
        }
        hint
    }
}

/// Copy of a log record.
#[derive(Clone, Debug)]
pub(crate) struct StoredRecord {
    pub(crate) sequence: u64,
    pub(crate) time: u64,
    pub(crate) source: Source,
    pub(crate) encoded: Arc<[u8]>,
}

/// Returns the records that match `search`, newest first. Records that arrive during the search are not included, so that a
/// search for those after the latest sequence number finds the others.
pub(crate) fn search(logs: &FairLock<Logs>, search: &LogSearch) -> SearchPage<StoredRecord> {
    let (end, mut new) = {
        let logs = logs.read();
        (logs.end(), logs.count_after(search.after))
    };
    SearchPage::collect(logs, search.before, search.limit, |logs, before, visit| {
        let mut resources = HashMap::new();
        for (position, entry) in logs.before(search.trace, before) {
            if new == 0 || search.above.is_some_and(|above| position.time <= above) {
                break;
            }
            let is_new = search.after.is_none_or(|after| position.number > after) && position.number < end;
            new -= u64::from(is_new);
            let found = (is_new && matches(search, logs, entry, &mut resources)).then(|| {
                let source = logs.sources.get(entry.source);
                let record = StoredRecord {
                    sequence: position.number,
                    time: entry.time,
                    source: source.clone(),
                    encoded: entry.encoded.clone(),
                };
                (entry.encoded.len() + source.len(), record)
            });
            if !visit(position, found) {
                return false;
            }
        }
        true
    })
}

fn matches(
    search: &LogSearch,
    logs: &Logs,
    entry: &Entry,
    resources: &mut HashMap<InternId, Vec<KeyValue>>,
) -> bool {
    let LogSearch {
        service,
        text,
        attributes,
        span,
        ..
    } = search;
    let source = logs.sources.get(entry.source);
    let entry_matches = search.severity.is_none_or(|least| entry.severity >= least)
        && search.from.is_none_or(|from| entry.time >= from)
        && search.to.is_none_or(|to| entry.time <= to)
        && service
            .as_deref()
            .is_none_or(|service| service == &*source.service)
        && text.as_ref().is_none_or(|text| text.is_in(&entry.encoded));
    if entry_matches && let Some(query) = &search.query {
        let resource = resources.entry(entry.source).or_insert_with(|| source.resource());
        if !RecordMatcher::new(entry, source, resource).matches(query) {
            return false;
        }
    }
    if !entry_matches || text.is_none() && attributes.is_empty() && span.is_none() {
        return entry_matches;
    }
    let mut is_of_resource =
        |wanted: &Attribute| wanted.is_in(resources.entry(entry.source).or_insert_with(|| source.resource()));
    // A scan of the encoding rules out most records without decoding them.
    let may_have = |wanted: &Attribute| wanted.may_be_in(&entry.encoded) || is_of_resource(wanted);
    if !attributes.iter().all(may_have) {
        return false;
    }
    let Ok(record) = LogRecord::decode(&*entry.encoded) else {
        return false;
    };
    let has = |wanted: &Attribute| wanted.is_in(&record.attributes) || is_of_resource(wanted);
    span.is_none_or(|span| SpanId::from_bytes(&record.span_id) == Some(span))
        && attributes.iter().all(has)
        && text.as_ref().is_none_or(|text| text.is_in_record(&record))
}
