//! Spans grouped by trace. A span is stored in its OTLP encoding with an index entry, and is only decoded when a page shows
//! or searches it. The trace that arrived first is evicted first, as a whole; a trace that uses much of the memory is cut
//! instead.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    mem::size_of,
    sync::Arc,
};

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, status::StatusCode};
use prost::Message as _;

use super::{
    arrivals::Arrivals,
    budget::{Evict, Room, max_item},
    ids::{SpanId, TraceId},
    intern::{InternId, Interner},
    memory,
    position::{TimeIndex, TimePosition},
    source::Source,
    span_class::SpanClass,
};

/// Inverse of the fraction of the memory limit above which a trace is cut instead of evicted.
const LARGE_TRACE_DIVISOR: usize = 4;

/// Maximum number of spans of a trace in which repeats are found by linear search. Longer traces get a set of hashes.
const MAX_LINEAR_SEARCH: usize = 32;

/// Maximum capacity of the buffer for encodings that is kept, in bytes.
const MAX_BUFFER: usize = 64 << 10;

/// Maximum delay between a trusted end timestamp and the arrival of the span, in nanoseconds.
const MAX_TRUSTED_DELAY: u64 = 60_000_000_000;

/// Index entry of a span.
#[derive(Clone, Debug)]
pub(crate) struct SpanEntry {
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    /// Start timestamp set by the sender; 0 if unset.
    pub(crate) start: u64,
    /// Duration in nanoseconds; 0 if the start is unset or the end is before it.
    pub(crate) duration: u64,
    /// End timestamp if it can be trusted, or else the time of arrival. Time windows use this time.
    pub(crate) effective_end: u64,
    pub(crate) class: InternId,
    /// Whether the status is an error.
    pub(crate) failed: bool,
    /// The span in OTLP's protobuf encoding.
    pub(crate) encoded: Arc<[u8]>,
}

/// Order in which spans qualify as the root, the least first: spans with a start, spans without a parent, the earliest.
type RootRank = (bool, bool, u64);

impl SpanEntry {
    fn root_rank(&self) -> RootRank {
        (self.start == 0, self.parent.is_some(), self.start)
    }
}

/// Spans of one trace, in order of arrival.
///
/// The struct is small on purpose: glibc reuses blocks of up to 72 bytes for the strings of requests. Larger blocks are merged
/// with their neighbours when a trace is evicted, which makes inserting half as fast.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) id: TraceId,
    pub(crate) spans: Vec<SpanEntry>,
    /// Latest `effective_end` of the spans.
    pub(crate) latest: u64,
    encodings_bytes: usize,
    /// Hashes of the spans' content, if there are more than [`MAX_LINEAR_SEARCH`] spans.
    #[expect(clippy::box_collection, reason = "see the comment on the struct")]
    hashes: Option<Box<HashSet<u64>>>,
    /// Number of spans removed because the trace used too much memory.
    dropped: u32,
    /// Index of the root.
    root: u32,
}

const _: () = assert!(size_of::<Trace>() <= 72, "see the comment on `Trace`");

impl Trace {
    fn bytes(&self) -> usize {
        memory::heap(size_of::<Self>())
            + memory::heap(self.spans.capacity() * size_of::<SpanEntry>())
            + self
                .hashes
                .as_ref()
                .map_or(0, |hashes| memory::table::<u64>(hashes.capacity()))
            + self.encodings_bytes
    }

    /// Returns the earliest span without a parent, or else the earliest span.
    pub(crate) fn root(&self) -> Option<&SpanEntry> {
        self.spans.get(self.root as usize)
    }

    /// Returns the start of the root; 0 if it is unset.
    fn start(&self) -> u64 {
        self.root().map_or(0, |root| root.start)
    }

    /// Number of spans removed because the trace used too much memory.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.into()
    }

    /// Adds a span, which may become the root.
    fn push(&mut self, span: SpanEntry) {
        self.latest = self.latest.max(span.effective_end);
        self.encodings_bytes += memory::shared(span.encoded.len());
        if self
            .root()
            .is_some_and(|root| span.root_rank() < root.root_rank())
        {
            self.root = u32::try_from(self.spans.len()).unwrap_or(0);
        }
        self.spans.push(span);
    }

    /// Whether an equal span is stored; otherwise, the hash of `new` is added if the trace is long.
    fn is_repeat(&mut self, new: &SpanEntry, hasher: &RandomState) -> bool {
        if self.spans.len() < MAX_LINEAR_SEARCH {
            let is_equal = |span: &SpanEntry| {
                span.id == new.id && span.class == new.class && span.encoded == new.encoded
            };
            return self.spans.iter().any(is_equal);
        }
        let hash = |span: &SpanEntry| hasher.hash_one((span.class, &span.encoded));
        let hashes = self
            .hashes
            .get_or_insert_with(|| Box::new(self.spans.iter().map(hash).collect()));
        !hashes.insert(hash(new))
    }

    /// Removes spans until the encodings use at most half of the memory; the root, failed spans and the longest spans are
    /// removed last. Returns the removed spans.
    fn cut(&mut self) -> Vec<SpanEntry> {
        let target = self.encodings_bytes / 2;
        let mut kept_bytes = 0;
        let mut is_kept = vec![false; self.spans.len()];
        for (rank, index) in by_importance(&self.spans).into_iter().enumerate() {
            kept_bytes += memory::shared(self.spans[index].encoded.len());
            if rank > 0 && kept_bytes > target {
                break;
            }
            is_kept[index] = true;
        }
        let mut is_kept = is_kept.into_iter();
        let removed: Vec<_> = self
            .spans
            .extract_if(.., |_| !is_kept.next().unwrap_or(true))
            .collect();
        self.spans.shrink_to_fit();
        self.hashes = None;
        let removed_bytes: usize = removed
            .iter()
            .map(|span| memory::shared(span.encoded.len()))
            .sum();
        self.encodings_bytes -= removed_bytes;
        self.dropped =
            u32::try_from(removed.len()).map_or(u32::MAX, |removed| self.dropped.saturating_add(removed));
        let root = (0..self.spans.len()).min_by_key(|&index| self.spans[index].root_rank());
        self.root = root.and_then(|root| u32::try_from(root).ok()).unwrap_or(0);
        removed
    }
}

/// Returns the indices of the spans of a trace: the root, then failed spans, then others, the longest first.
pub(crate) fn by_importance(spans: &[SpanEntry]) -> Vec<usize> {
    let root = (0..spans.len()).min_by_key(|&index| spans[index].root_rank());
    let mut indices: Vec<_> = (0..spans.len()).collect();
    indices.sort_unstable_by_key(|&index| {
        let span = &spans[index];
        Reverse((Some(index) == root, span.failed, span.duration))
    });
    indices
}

/// Store of spans.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    limit: usize,
    /// In order of the arrival of the first span. The number of a trace is `first` plus its index in this list.
    order: VecDeque<Box<Trace>>,
    first: u64,
    numbers: HashMap<TraceId, u64>,
    by_time: TimeIndex,
    arrivals: Arrivals,
    /// Traces that use more than a fraction of the limit, some of which may have been evicted.
    large: Vec<TraceId>,
    hasher: RandomState,
    /// Buffer for the encoding of a span.
    encoding: Vec<u8>,
    traces_bytes: usize,
    pub(crate) spans: usize,
    pub(crate) sources: Interner<Source>,
    pub(crate) classes: Interner<SpanClass>,
    pub(crate) evicted: u64,
    /// Latest time of what was evicted.
    pub(crate) evicted_until: u64,
    /// Number of spans that were received before, for example because their sender resent a request.
    pub(crate) repeated: u64,
    /// Number of spans rejected as too large or without valid ids.
    pub(crate) refused: u64,
}

impl Traces {
    /// Creates a store whose limit applies to all signals together.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            first: 1,
            ..Self::default()
        }
    }

    /// Inserts spans that arrived at `now`, and evicts the oldest beyond `room`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceSpans>, now: u64, room: Room) {
        self.arrivals.push(self.first + self.order.len() as u64, now);
        for group in request {
            let resource = group.resource.as_ref();
            for scope_group in group.scope_spans {
                let scope = scope_group.scope.as_ref();
                let Some(source) = Source::intern(&mut self.sources, resource, scope, max_item(self.limit))
                else {
                    self.refused += scope_group.spans.len() as u64;
                    continue;
                };
                for span in &scope_group.spans {
                    if self.insert_span(span, source, now).is_none() {
                        self.refused += 1;
                    }
                    room.make(self);
                }
                self.sources.release(source);
            }
        }
    }

    /// Inserts a span unless it is a repeat; returns `None` if it is rejected.
    fn insert_span(&mut self, span: &Span, source: InternId, now: u64) -> Option<()> {
        let trace_id = TraceId::from_bytes(&span.trace_id)?;
        let id = SpanId::from_bytes(&span.span_id)?;
        self.encoding.clear();
        self.encoding.shrink_to(MAX_BUFFER);
        span.encode(&mut self.encoding).ok()?;
        if memory::shared(self.encoding.len()) > max_item(self.limit) {
            return None;
        }
        let index = match self.numbers.get(&trace_id) {
            Some(number) => usize::try_from(number - self.first).ok()?,
            None => self.add_trace(trace_id),
        };
        let number = self.first + index as u64;
        let trace = self.order.get_mut(index)?;
        let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
        let entry = SpanEntry {
            id,
            parent: SpanId::from_bytes(&span.parent_span_id),
            start,
            duration: if start == 0 { 0 } else { end.saturating_sub(start) },
            effective_end: effective_end(end, now),
            class: SpanClass::intern(&mut self.classes, &mut self.sources, source, span),
            failed: span
                .status
                .as_ref()
                .is_some_and(|status| status.code() == StatusCode::Error),
            encoded: self.encoding.as_slice().into(),
        };
        let before = trace.bytes();
        if trace.is_repeat(&entry, &self.hasher) {
            SpanClass::release(&mut self.classes, &mut self.sources, entry.class);
            self.traces_bytes = self.traces_bytes + trace.bytes() - before;
            self.repeated += 1;
            return Some(());
        }
        let is_first = trace.spans.is_empty();
        let old_start = trace.start();
        trace.push(entry);
        let start = trace.start();
        if is_first || start != old_start {
            let time = |start| {
                if start == 0 {
                    self.arrivals.of(number)
                } else {
                    start
                }
            };
            if !is_first {
                self.by_time.remove(time(old_start), number);
            }
            self.by_time.insert(time(start), number);
        }
        let bytes = trace.bytes();
        self.traces_bytes = self.traces_bytes + bytes - before;
        if bytes > self.limit / LARGE_TRACE_DIVISOR && !self.large.contains(&trace_id) {
            self.large.push(trace_id);
        }
        self.spans += 1;
        Some(())
    }

    /// Adds an empty trace and returns its index.
    fn add_trace(&mut self, id: TraceId) -> usize {
        let trace = Box::new(Trace {
            id,
            spans: Vec::new(),
            latest: 0,
            encodings_bytes: 0,
            hashes: None,
            dropped: 0,
            root: 0,
        });
        let index = self.order.len();
        self.numbers.insert(id, self.first + index as u64);
        self.traces_bytes += trace.bytes();
        memory::grow(&mut self.order);
        self.order.push_back(trace);
        index
    }

    /// Cuts a large trace; returns whether there is one.
    fn cut_large(&mut self) -> bool {
        while let Some(id) = self.large.pop() {
            let number = self.numbers.get(&id);
            let index = number.and_then(|number| usize::try_from(number - self.first).ok());
            let Some(trace) = index.and_then(|index| self.order.get_mut(index)) else {
                continue;
            };
            let before = trace.bytes();
            let removed = trace.cut();
            self.traces_bytes = self.traces_bytes + trace.bytes() - before;
            if trace.bytes() > self.limit / LARGE_TRACE_DIVISOR {
                self.large.push(id);
            }
            self.release(&removed);
            return true;
        }
        false
    }

    /// Counts evicted spans and releases their classes.
    fn release(&mut self, evicted: &[SpanEntry]) {
        self.spans -= evicted.len();
        self.evicted += evicted.len() as u64;
        for span in evicted {
            SpanClass::release(&mut self.classes, &mut self.sources, span.class);
        }
    }

    /// Removes all spans; returns their number.
    pub(crate) fn clear(&mut self) -> u64 {
        let emptied = Self {
            first: self.first + self.order.len() as u64,
            evicted: self.evicted,
            repeated: self.repeated,
            refused: self.refused,
            ..Self::new(self.limit)
        };
        std::mem::replace(self, emptied).spans as u64
    }

    /// Returns the traces from `number`, each with its number, in order of arrival.
    pub(crate) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &Trace)> {
        let skipped = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let traces = self.order.range(skipped.min(self.order.len())..);
        (number.max(self.first)..).zip(traces.map(|trace| &**trace))
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn get(&self, id: TraceId) -> Option<&Trace> {
        self.by_number(*self.numbers.get(&id)?)
    }

    fn by_number(&self, number: u64) -> Option<&Trace> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.order.get(index).map(|trace| &**trace)
    }

    /// Returns the traces below `before`, each with its position, newest first.
    pub(crate) fn before(&self, before: TimePosition) -> impl Iterator<Item = (TimePosition, &Trace)> {
        let positions = self.by_time.before(before);
        positions.filter_map(|position| Some((position, self.by_number(position.number)?)))
    }

    /// Returns traces with a span whose `effective_end` is `since` or later, in order of arrival.
    pub(crate) fn since(&self, since: u64) -> impl Iterator<Item = &Trace> {
        self.order
            .iter()
            .map(|trace| &**trace)
            .filter(move |trace| trace.latest >= since)
    }

    pub(crate) fn source(&self, span: &SpanEntry) -> &Source {
        self.sources.get(self.classes.get(span.class).source)
    }
}

impl Evict for Traces {
    fn bytes(&self) -> usize {
        self.traces_bytes
            + self.order.capacity() * size_of::<Box<Trace>>()
            + memory::table::<(TraceId, u64)>(self.numbers.capacity())
            + self.by_time.bytes()
            + self.arrivals.bytes()
            + self.classes.bytes()
            + self.sources.bytes()
    }

    fn oldest(&self) -> Option<u64> {
        (!self.order.is_empty()).then(|| self.arrivals.of(self.first))
    }

    fn evict_oldest(&mut self) {
        if self.cut_large() {
            return;
        }
        let Some(trace) = self.order.pop_front() else {
            return;
        };
        let time = match trace.start() {
            0 => self.arrivals.of(self.first),
            start => start,
        };
        self.by_time.remove(time, self.first);
        self.evicted_until = self.evicted_until.max(time);
        self.first += 1;
        self.arrivals.remove_before(self.first);
        self.numbers.remove(&trace.id);
        self.traces_bytes -= trace.bytes();
        self.release(&trace.spans);
        if self.numbers.capacity() > 4 * self.numbers.len() + 64 {
            self.numbers.shrink_to(2 * self.numbers.len());
            self.order.shrink_to(2 * self.order.len());
        }
    }
}

/// Returns `end` if it is at most [`MAX_TRUSTED_DELAY`] before `now` and not after it, or else `now`.
fn effective_end(end: u64, now: u64) -> u64 {
    if (now.saturating_sub(MAX_TRUSTED_DELAY)..=now).contains(&end) {
        end
    } else {
        now
    }
}
