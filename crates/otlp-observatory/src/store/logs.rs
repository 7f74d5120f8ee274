//! Log records as they came, oldest first out. Each is its OTLP encoding and an entry of an index; the records of a trace
//! are a chain through them, from the newest back.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message as _;

use super::{
    ids::TraceId,
    intern::{Interner, Shared},
    memory,
    origin::Origin,
};

/// One record may take this part of the limit.
const SHARE_OF_ONE: usize = 16;

/// Where a record is among the others, without decoding it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// As the sender said, else when it came.
    pub(super) time: u64,
    pub(super) trace: Option<TraceId>,
    /// The record before of the same trace, by sequence.
    pub(super) previous: u64,
    pub(super) origin: Shared,
    /// OTLP's severity number; 0 when there is none.
    pub(super) severity: u8,
    pub(super) encoded: Arc<[u8]>,
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
                    self.limit / SHARE_OF_ONE,
                );
                let Some(origin) = origin else {
                    self.refused += from_scope.log_records.len() as u64;
                    continue;
                };
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

    pub(super) fn get(&self, sequence: u64) -> Option<&Entry> {
        let place = sequence.checked_sub(self.first)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The newest record before `before`, of `trace` if one is given: its sequence. It may have left already.
    pub(super) fn newest_before(&self, trace: Option<TraceId>, before: u64) -> Option<u64> {
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
}
