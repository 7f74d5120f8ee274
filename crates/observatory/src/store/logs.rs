//! Log records as they came, oldest first out. Each is its OTLP encoding and an entry of an index; the records of a trace
//! are a chain through them, from the newest back.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::{Arc, RwLock},
    time::Instant,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    logs::v1::{LogRecord, ResourceLogs},
};
use prost::Message as _;

use super::{
    filter::{Attribute, Text},
    ids::{SpanId, TraceId},
    intern::{Interner, Shared},
    memory,
    origin::Origin,
    read,
    search::{AT_A_TIME, Found, PATIENCE},
};

/// One record may take this part of the limit.
const SHARE_OF_ONE: usize = 16;

/// Where a record is among the others, without decoding it.
#[derive(Clone, Debug)]
struct Entry {
    /// As the sender said, else when it came.
    time: u64,
    trace: Option<TraceId>,
    /// The record before of the same trace, by sequence.
    previous: u64,
    origin: Shared,
    /// OTLP's severity number; 0 when there is none.
    severity: u8,
    encoded: Arc<[u8]>,
}

/// The newest record of a trace, and how many it has.
#[derive(Clone, Copy, Debug)]
struct Chain {
    newest: u64,
    records: u64,
}

/// What is kept of log records, within a limit.
#[derive(Debug)]
pub(crate) struct Logs {
    limit: usize,
    /// By sequence; that of the first is `first`.
    entries: VecDeque<Entry>,
    first: u64,
    chains: HashMap<TraceId, Chain>,
    encodings_bytes: usize,
    pub(crate) origins: Interner<Origin>,
    pub(crate) evicted: u64,
    /// Records that alone would take too much.
    pub(crate) refused: u64,
    buffer: Vec<u8>,
}

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

impl Logs {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: VecDeque::new(),
            first: 1,
            chains: HashMap::new(),
            encodings_bytes: 0,
            origins: Interner::default(),
            evicted: 0,
            refused: 0,
            buffer: Vec::new(),
        }
    }

    /// Keeps what came at `now`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceLogs>, now: u64) {
        for from_resource in request {
            for from_scope in from_resource.scope_logs {
                let origin = Origin::intern(
                    &mut self.origins,
                    from_resource.resource.as_ref(),
                    from_scope.scope.as_ref(),
                );
                for record in &from_scope.log_records {
                    self.keep(record, origin, now);
                    self.evict();
                }
                self.origins.release(origin);
            }
        }
    }

    fn keep(&mut self, record: &LogRecord, origin: Shared, now: u64) {
        self.buffer.clear();
        let fits = memory::shared(record.encoded_len()) <= self.limit / SHARE_OF_ONE;
        if !fits || record.encode(&mut self.buffer).is_err() {
            self.refused += 1;
            return;
        }
        let sequence = self.first + self.entries.len() as u64;
        let trace = TraceId::from_bytes(&record.trace_id);
        let mut previous = 0;
        if let Some(trace) = trace {
            let chain = self.chains.entry(trace).or_insert(Chain {
                newest: 0,
                records: 0,
            });
            previous = std::mem::replace(&mut chain.newest, sequence);
            chain.records += 1;
        }
        self.origins.retain(origin);
        self.encodings_bytes += memory::shared(self.buffer.len());
        memory::grow(&mut self.entries);
        self.entries.push_back(Entry {
            time: [record.time_unix_nano, record.observed_time_unix_nano]
                .into_iter()
                .find(|&time| time != 0)
                .unwrap_or(now),
            trace,
            previous,
            origin,
            severity: u8::try_from(record.severity_number).unwrap_or(0),
            encoded: self.buffer.as_slice().into(),
        });
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
    }

    /// Lets the oldest records go until the limit is kept.
    fn evict(&mut self) {
        while self.bytes() > self.limit {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.first += 1;
            self.evicted += 1;
            self.encodings_bytes -= memory::shared(entry.encoded.len());
            self.origins.release(entry.origin);
            if let Some(trace) = entry.trace
                && let Some(chain) = self.chains.get_mut(&trace)
            {
                chain.records -= 1;
                if chain.records == 0 {
                    self.chains.remove(&trace);
                }
            }
            if self.entries.capacity() > 4 * self.entries.len() + 64 {
                self.entries.shrink_to(2 * self.entries.len());
            }
            if self.chains.capacity() > 4 * self.chains.len() + 64 {
                self.chains.shrink_to(2 * self.chains.len());
            }
        }
    }

    /// All that is taken, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.encodings_bytes
            + self.entries.capacity() * size_of::<Entry>()
            + memory::table::<(TraceId, Chain)>(self.chains.capacity())
            + self.origins.bytes()
            + self.buffer.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The time of the oldest record.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.time)
    }

    /// How many records `trace` has.
    pub(crate) fn of_trace(&self, trace: TraceId) -> u64 {
        self.chains.get(&trace).map_or(0, |chain| chain.records)
    }

    fn get(&self, sequence: u64) -> Option<&Entry> {
        let place = sequence.checked_sub(self.first)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Where a search begins: at the newest that may match and comes before `before`.
    fn newest(&self, search: &LogSearch, before: u64) -> Option<u64> {
        match search.trace {
            None => {
                let end = self.first + self.entries.len() as u64;
                before
                    .min(end)
                    .checked_sub(1)
                    .filter(|newest| *newest >= self.first)
            }
            Some(trace) => {
                let mut sequence = self.chains.get(&trace)?.newest;
                while sequence >= before {
                    sequence = self.get(sequence)?.previous;
                }
                Some(sequence)
            }
        }
    }

    fn taken(&self, sequence: u64, entry: &Entry) -> KeptRecord {
        KeptRecord {
            sequence,
            time: entry.time,
            origin: self.origins.get(entry.origin).clone(),
            encoded: entry.encoded.clone(),
        }
    }
}

/// Looks for records as `search` says, newest first, as [`super::search::search`] does.
pub(crate) fn search(logs: &RwLock<Logs>, search: &LogSearch) -> Found<KeptRecord> {
    let deadline = Instant::now() + PATIENCE;
    let mut entries = Vec::new();
    let mut before = search.before.unwrap_or(u64::MAX);
    loop {
        let logs = read(logs);
        let pause = Instant::now() + AT_A_TIME;
        let mut resources = HashMap::new();
        let mut next = logs.newest(search, before);
        while let Some(sequence) = next {
            let Some(entry) = logs
                .get(sequence)
                .filter(|_| search.after.is_none_or(|after| sequence > after))
            else {
                next = None;
                break;
            };
            if entries.len() == search.limit || (sequence % 64 == 0 && Instant::now() >= pause) {
                break;
            }
            before = sequence;
            if holds(search, &logs, entry, &mut resources) {
                entries.push(logs.taken(sequence, entry));
            }
            next = match search.trace {
                Some(_) => Some(entry.previous),
                None => sequence.checked_sub(1),
            };
        }
        if next.is_none() {
            return Found { entries, next };
        }
        if entries.len() == search.limit || Instant::now() >= deadline {
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
    let Ok(record) = LogRecord::decode(&*entry.encoded) else {
        return false;
    };
    let mut is_attribute = |wanted: &Attribute| {
        wanted.is_in(&record.attributes)
            || wanted.is_in(resources.entry(entry.origin).or_insert_with(|| origin.resource()))
    };
    search
        .span
        .is_none_or(|span| SpanId::from_bytes(&record.span_id) == Some(span))
        && search.attributes.iter().all(&mut is_attribute)
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
