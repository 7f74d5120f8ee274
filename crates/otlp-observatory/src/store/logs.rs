//! Log records in order of arrival, in which they are evicted, with an index by time, in which they are shown. A record is
//! stored in its OTLP encoding with an index entry. The records of a trace form a linked list in order of arrival.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message as _;

use super::{
    arrivals::Arrivals,
    budget::{Evict, Room, max_item},
    ids::TraceId,
    intern::{InternId, Interner},
    memory,
    position::{TimeIndex, TimePosition},
    source::Source,
};

/// Maximum number of records of the same time that are compared with a new one to find a repeat.
const MAX_COMPARED: usize = 1_000;

/// Maximum number of records of a trace that are found by its list; those of longer ones are found by the index.
const MAX_LISTED: u64 = 10_000;

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

/// Store of log records.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    limit: usize,
    /// Ordered by sequence number, without gaps, starting at `first`.
    entries: VecDeque<Entry>,
    first: u64,
    by_time: TimeIndex,
    arrivals: Arrivals,
    chains: HashMap<TraceId, Chain>,
    encodings_bytes: usize,
    pub(crate) sources: Interner<Source>,
    pub(crate) evicted: u64,
    /// Latest time of what was evicted.
    pub(crate) evicted_until: u64,
    /// Number of records that an earlier request contained.
    pub(crate) repeated: u64,
    /// Number of records rejected as too large.
    pub(crate) refused: u64,
}

impl Logs {
    /// Creates a store whose limit applies to all signals together.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            first: 1,
            ..Self::default()
        }
    }

    /// Inserts records that arrived at `now`, and evicts the oldest beyond `room`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceLogs>, now: u64, room: Room) {
        let earlier = self.end();
        self.arrivals.push(earlier, now);
        for group in request {
            let resource = group.resource.as_ref();
            for scope_group in group.scope_logs {
                let scope = scope_group.scope.as_ref();
                let Some(source) = Source::intern(&mut self.sources, resource, scope, max_item(self.limit))
                else {
                    self.refused += scope_group.log_records.len() as u64;
                    continue;
                };
                for record in &scope_group.log_records {
                    if self.insert_record(record, source, earlier, now).is_none() {
                        self.refused += 1;
                    }
                    room.make(self);
                }
                self.sources.release(source);
            }
        }
    }

    /// Inserts a record unless one below the sequence number `earlier` is equal; returns `None` if it is rejected.
    fn insert_record(&mut self, record: &LogRecord, source: InternId, earlier: u64, now: u64) -> Option<()> {
        let encoding_bytes = memory::shared(record.encoded_len());
        if encoding_bytes > max_item(self.limit) {
            return None;
        }
        let encoded = record.encode_to_vec();
        let timestamps = [record.time_unix_nano, record.observed_time_unix_nano];
        let time = timestamps.into_iter().find(|&time| time != 0).unwrap_or(now);
        if self.is_repeat(time, source, &encoded, earlier) {
            self.repeated += 1;
            return Some(());
        }
        let sequence = self.end();
        let trace = TraceId::from_bytes(&record.trace_id);
        let mut previous = 0;
        if let Some(trace) = trace {
            let chain = self.chains.entry(trace).or_default();
            previous = std::mem::replace(&mut chain.newest, sequence);
            chain.records += 1;
        }
        self.sources.retain(source);
        self.encodings_bytes += encoding_bytes;
        self.by_time.insert(time, sequence);
        memory::grow(&mut self.entries);
        self.entries.push_back(Entry {
            time,
            trace,
            previous,
            source,
            severity: u8::try_from(record.severity_number).unwrap_or(0),
            encoded: encoded.into(),
        });
        Some(())
    }

    /// Whether an earlier request contained the record. Equal records of one request are not repeats: clocks
    /// are coarse, and a program may log the same line twice.
    fn is_repeat(&self, time: u64, source: InternId, encoded: &[u8], earlier: u64) -> bool {
        let before = TimePosition {
            time,
            number: earlier,
        };
        let same_time = self
            .by_time
            .before(before)
            .take_while(|position| position.time == time);
        let mut entries = same_time
            .take(MAX_COMPARED)
            .filter_map(|position| self.get(position.number));
        entries.any(|entry| entry.source == source && *entry.encoded == *encoded)
    }

    /// Returns the sequence number of the next record.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Returns the number of records with sequence numbers above `after`.
    pub(super) fn count_after(&self, after: Option<u64>) -> u64 {
        let first = after.map_or(0, |after| after.saturating_add(1)).max(self.first);
        self.end().saturating_sub(first)
    }

    /// Removes all records; returns their number.
    pub(crate) fn clear(&mut self) -> u64 {
        let emptied = Self {
            first: self.end(),
            evicted: self.evicted,
            repeated: self.repeated,
            refused: self.refused,
            ..Self::new(self.limit)
        };
        std::mem::replace(self, emptied).len() as u64
    }

    /// Returns the records from `sequence`, each with its sequence number, in order of arrival.
    pub(super) fn from(&self, sequence: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let skipped = usize::try_from(sequence.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let entries = self.entries.range(skipped.min(self.entries.len())..);
        (sequence.max(self.first)..).zip(entries)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of records of `trace`.
    pub(crate) fn count_in_trace(&self, trace: TraceId) -> u64 {
        self.chains.get(&trace).map_or(0, |chain| chain.records)
    }

    /// Returns the records below `before`, of `trace` if given, each with its position, newest first.
    pub(super) fn before(
        &self,
        trace: Option<TraceId>,
        before: TimePosition,
    ) -> Box<dyn Iterator<Item = (TimePosition, &Entry)> + '_> {
        let get = |position: TimePosition| Some((position, self.get(position.number)?));
        let Some(trace) = trace else {
            return Box::new(self.by_time.before(before).filter_map(get));
        };
        let is_of_trace = move |(_, entry): &(TimePosition, &Entry)| entry.trace == Some(trace);
        if self.count_in_trace(trace) > MAX_LISTED {
            return Box::new(self.by_time.before(before).filter_map(get).filter(is_of_trace));
        }
        let newest = self.chains.get(&trace).map(|chain| chain.newest);
        let numbers = std::iter::successors(newest, |&number| Some(self.get(number)?.previous));
        let positions = numbers.map_while(|number| {
            let time = self.get(number)?.time;
            Some(TimePosition { time, number })
        });
        let mut positions: Vec<_> = positions.filter(|position| *position < before).collect();
        positions.sort_unstable();
        Box::new(positions.into_iter().rev().filter_map(get))
    }

    fn get(&self, sequence: u64) -> Option<&Entry> {
        let index = sequence.checked_sub(self.first)?;
        self.entries.get(usize::try_from(index).ok()?)
    }
}

impl Evict for Logs {
    fn bytes(&self) -> usize {
        self.encodings_bytes
            + self.entries.capacity() * size_of::<Entry>()
            + self.arrivals.bytes()
            + memory::table::<(TraceId, Chain)>(self.chains.capacity())
            + self.by_time.bytes()
            + self.sources.bytes()
    }

    fn oldest(&self) -> Option<u64> {
        (!self.entries.is_empty()).then(|| self.arrivals.of(self.first))
    }

    fn evict_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        self.by_time.remove(entry.time, self.first);
        self.evicted_until = self.evicted_until.max(entry.time);
        self.first += 1;
        self.evicted += 1;
        self.arrivals.remove_before(self.first);
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
