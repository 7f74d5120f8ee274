//! Log records in order of arrival; the oldest are evicted first. A record is stored in its OTLP encoding
//! with an index entry. The records of a trace form a linked list from the newest to the oldest.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message as _;

use super::{
    ids::TraceId,
    intern::{InternId, Interner},
    memory,
    source::Source,
};

/// Inverse of the fraction of the memory limit that a single record may use.
const RECORD_LIMIT_DIVISOR: usize = 16;

/// Index entry of a record.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Timestamp set by the sender, or else the time of arrival.
    pub(super) time: u64,
    pub(super) trace: Option<TraceId>,
    /// Sequence number of the previous record of the same trace; 0 if there is none.
    pub(super) previous: u64,
    pub(super) source: InternId,
    /// Severity number of OTLP; 0 if unset.
    pub(super) severity: u8,
    /// The record in OTLP's protobuf encoding.
    pub(super) encoded: Arc<[u8]>,
}

/// Linked list of the records of a trace: the sequence number of the newest, and the number of records.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    newest: u64,
    records: u64,
}

/// Store of log records with a memory limit.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    limit: usize,
    /// Ordered by sequence number, without gaps, starting at `first`.
    entries: VecDeque<Entry>,
    first: u64,
    chains: HashMap<TraceId, Chain>,
    encodings_bytes: usize,
    pub(crate) sources: Interner<Source>,
    pub(crate) evicted: u64,
    /// Number of records rejected as too large.
    pub(crate) refused: u64,
}

impl Logs {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            first: 1,
            ..Self::default()
        }
    }

    /// Inserts records that arrived at `now`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceLogs>, now: u64) {
        let allowance = self.limit / RECORD_LIMIT_DIVISOR;
        for group in request {
            let resource = group.resource.as_ref();
            for scope_group in group.scope_logs {
                let scope = scope_group.scope.as_ref();
                let Some(source) = Source::intern(&mut self.sources, resource, scope, allowance) else {
                    self.refused += scope_group.log_records.len() as u64;
                    continue;
                };
                for record in &scope_group.log_records {
                    self.insert_record(record, source, now);
                    self.evict();
                }
                self.sources.release(source);
            }
        }
    }

    fn insert_record(&mut self, record: &LogRecord, source: InternId, now: u64) {
        let encoding_bytes = memory::shared(record.encoded_len());
        if encoding_bytes > self.limit / RECORD_LIMIT_DIVISOR {
            self.refused += 1;
            return;
        }
        let sequence = self.first + self.entries.len() as u64;
        let trace = TraceId::from_bytes(&record.trace_id);
        let mut previous = 0;
        if let Some(trace) = trace {
            let chain = self.chains.entry(trace).or_default();
            previous = std::mem::replace(&mut chain.newest, sequence);
            chain.records += 1;
        }
        self.sources.retain(source);
        self.encodings_bytes += encoding_bytes;
        memory::grow(&mut self.entries);
        self.entries.push_back(Entry {
            time: [record.time_unix_nano, record.observed_time_unix_nano]
                .into_iter()
                .find(|&time| time != 0)
                .unwrap_or(now),
            trace,
            previous,
            source,
            severity: u8::try_from(record.severity_number).unwrap_or(0),
            encoded: record.encode_to_vec().into(),
        });
    }

    /// Removes the oldest records until the memory use is within the limit.
    fn evict(&mut self) {
        while self.bytes() > self.limit {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.first += 1;
            self.evicted += 1;
            self.encodings_bytes -= memory::shared(entry.encoded.len());
            self.sources.release(entry.source);
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

    /// Returns the memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.encodings_bytes
            + self.entries.capacity() * size_of::<Entry>()
            + memory::table::<(TraceId, Chain)>(self.chains.capacity())
            + self.sources.bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the timestamp of the oldest record.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.time)
    }

    /// Returns the number of records of `trace`.
    pub(crate) fn count_in_trace(&self, trace: TraceId) -> u64 {
        self.chains.get(&trace).map_or(0, |chain| chain.records)
    }

    /// Returns the records with sequence numbers below `before`, of `trace` if given, newest first.
    pub(super) fn before(&self, trace: Option<TraceId>, before: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let get = |sequence| Some((sequence, self.get(sequence)?));
        let newest = self.newest_before(trace, before).and_then(get);
        std::iter::successors(newest, move |(sequence, entry)| {
            let previous = trace.map_or(sequence - 1, |_| entry.previous);
            get(previous)
        })
    }

    /// Returns the highest sequence number below `before`, of `trace` if given.
    ///
    /// The record may have been evicted.
    fn newest_before(&self, trace: Option<TraceId>, before: u64) -> Option<u64> {
        let Some(trace) = trace else {
            let end = self.first + self.entries.len() as u64;
            return before.min(end).checked_sub(1);
        };
        if let Some(entry) = self.get(before).filter(|entry| entry.trace == Some(trace)) {
            return Some(entry.previous);
        }
        let mut sequence = self.chains.get(&trace)?.newest;
        while sequence >= before {
            sequence = self.get(sequence)?.previous;
        }
        Some(sequence)
    }

    fn get(&self, sequence: u64) -> Option<&Entry> {
        let index = sequence.checked_sub(self.first)?;
        self.entries.get(usize::try_from(index).ok()?)
    }
}
