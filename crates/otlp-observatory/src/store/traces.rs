//! Spans grouped by trace, in order of arrival. A span is stored in its OTLP encoding with an index entry,
//! and is only decoded when a page shows or searches it. Above the memory limit, the oldest traces are
//! evicted as a whole.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, status::StatusCode};
use prost::Message as _;

use super::{
    ids::{SpanId, TraceId},
    intern::{InternId, Interner},
    memory,
    source::Source,
    span_class::SpanClass,
};

/// Inverse of the fraction of the memory limit that a single trace may use. Further spans are dropped.
const TRACE_LIMIT_DIVISOR: usize = 16;

/// Maximum delay between a trusted end timestamp and the arrival of the span, in nanoseconds.
const MAX_TRUSTED_DELAY: u64 = 60_000_000_000;

/// Index entry of a span.
#[derive(Clone, Debug)]
pub(crate) struct SpanEntry {
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    /// Start timestamp set by the sender.
    pub(crate) start: u64,
    /// Duration in nanoseconds; 0 if the end is before the start.
    pub(crate) duration: u64,
    /// End timestamp if it can be trusted, or else the time of arrival. Time windows use this time.
    pub(crate) effective_end: u64,
    pub(crate) class: InternId,
    /// Whether the status is an error.
    pub(crate) failed: bool,
    /// The span in OTLP's protobuf encoding.
    pub(crate) encoded: Arc<[u8]>,
}

/// Spans of one trace, in order of arrival.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) id: TraceId,
    pub(crate) spans: Vec<SpanEntry>,
    /// Latest `effective_end` of the spans.
    pub(crate) latest: u64,
    /// Number of spans dropped because the trace had reached its limit.
    pub(crate) dropped: u64,
    encodings_bytes: usize,
}

impl Trace {
    fn bytes(&self) -> usize {
        memory::heap(size_of::<Self>())
            + memory::heap(self.spans.capacity() * size_of::<SpanEntry>())
            + self.encodings_bytes
    }

    /// Returns the first start, and the duration from the first start to the last end.
    pub(crate) fn extent(&self) -> (u64, u64) {
        let start = self.spans.iter().map(|span| span.start).min().unwrap_or(0);
        let end = self
            .spans
            .iter()
            .map(|span| span.start.saturating_add(span.duration))
            .max();
        (start, end.unwrap_or(0).saturating_sub(start))
    }

    /// Returns the earliest span without a parent, or else the earliest span.
    pub(crate) fn root(&self) -> Option<&SpanEntry> {
        self.spans
            .iter()
            .min_by_key(|span| (span.parent.is_some(), span.start))
    }
}

/// Store of spans with a memory limit.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    limit: usize,
    /// Oldest first. The number of a trace is `first` plus its index in this list.
    order: VecDeque<Box<Trace>>,
    first: u64,
    numbers: HashMap<TraceId, u64>,
    traces_bytes: usize,
    pub(crate) spans: usize,
    pub(crate) sources: Interner<Source>,
    pub(crate) classes: Interner<SpanClass>,
    pub(crate) evicted: u64,
    /// Number of spans rejected as too large, without valid ids, or beyond the limit of their trace.
    pub(crate) refused: u64,
}

impl Traces {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            first: 1,
            ..Self::default()
        }
    }

    /// Inserts spans that arrived at `now`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceSpans>, now: u64) {
        let allowance = self.limit / TRACE_LIMIT_DIVISOR;
        for group in request {
            let resource = group.resource.as_ref();
            for scope_group in group.scope_spans {
                let scope = scope_group.scope.as_ref();
                let Some(source) = Source::intern(&mut self.sources, resource, scope, allowance) else {
                    self.refused += scope_group.spans.len() as u64;
                    continue;
                };
                for span in &scope_group.spans {
                    if self.insert_span(span, source, now).is_none() {
                        self.refused += 1;
                    }
                    self.evict();
                }
                self.sources.release(source);
            }
        }
    }

    /// Inserts a span; returns `None` if it is rejected.
    fn insert_span(&mut self, span: &Span, source: InternId, now: u64) -> Option<()> {
        let trace_id = TraceId::from_bytes(&span.trace_id)?;
        let id = SpanId::from_bytes(&span.span_id)?;
        let encoding_bytes = memory::shared(span.encoded_len());
        let allowance = self.limit / TRACE_LIMIT_DIVISOR;
        let index = match self.numbers.get(&trace_id) {
            Some(number) => usize::try_from(number - self.first).ok()?,
            None if encoding_bytes > allowance => return None,
            None => self.add_trace(trace_id),
        };
        let trace = self.order.get_mut(index)?;
        let before = trace.bytes();
        if before.saturating_add(encoding_bytes) > allowance && !trace.spans.is_empty() {
            trace.dropped += 1;
            return None;
        }
        let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        let effective_end = effective_end(span.end_time_unix_nano, now);
        trace.spans.push(SpanEntry {
            id,
            parent: SpanId::from_bytes(&span.parent_span_id),
            start: span.start_time_unix_nano,
            duration,
            effective_end,
            class: SpanClass::intern(&mut self.classes, &mut self.sources, source, span),
            failed: span
                .status
                .as_ref()
                .is_some_and(|status| status.code() == StatusCode::Error),
            encoded: span.encode_to_vec().into(),
        });
        trace.latest = trace.latest.max(effective_end);
        trace.encodings_bytes += encoding_bytes;
        self.traces_bytes = self.traces_bytes + trace.bytes() - before;
        self.spans += 1;
        Some(())
    }

    /// Adds an empty trace and returns its index.
    fn add_trace(&mut self, id: TraceId) -> usize {
        let trace = Box::new(Trace {
            id,
            spans: Vec::new(),
            latest: 0,
            dropped: 0,
            encodings_bytes: 0,
        });
        let index = self.order.len();
        self.numbers.insert(id, self.first + index as u64);
        self.traces_bytes += trace.bytes();
        memory::grow(&mut self.order);
        self.order.push_back(trace);
        index
    }

    /// Removes the oldest traces until the memory use is within the limit.
    fn evict(&mut self) {
        while self.bytes() > self.limit {
            let Some(trace) = self.order.pop_front() else {
                break;
            };
            self.first += 1;
            self.numbers.remove(&trace.id);
            self.traces_bytes -= trace.bytes();
            self.spans -= trace.spans.len();
            self.evicted += trace.spans.len() as u64;
            for span in &trace.spans {
                SpanClass::release(&mut self.classes, &mut self.sources, span.class);
            }
            if self.numbers.capacity() > 4 * self.numbers.len() + 64 {
                self.numbers.shrink_to(2 * self.numbers.len());
                self.order.shrink_to(2 * self.order.len());
            }
        }
    }

    /// Returns the memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.traces_bytes
            + self.order.capacity() * size_of::<Box<Trace>>()
            + memory::table::<(TraceId, u64)>(self.numbers.capacity())
            + self.classes.bytes()
            + self.sources.bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn get(&self, id: TraceId) -> Option<&Trace> {
        let number = self.numbers.get(&id)?;
        let index = usize::try_from(number - self.first).ok()?;
        self.order.get(index).map(|trace| &**trace)
    }

    /// Returns the traces with numbers below `before`, each with its number, newest first.
    pub(crate) fn before(&self, before: u64) -> impl Iterator<Item = (u64, &Trace)> {
        let end = usize::try_from(before.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let end = end.min(self.order.len());
        let numbers = (self.first..self.first + end as u64).rev();
        numbers.zip(self.order.range(..end).rev().map(|trace| &**trace))
    }

    /// Returns traces with a span whose `effective_end` is `since` or later, oldest first.
    pub(crate) fn since(&self, since: u64) -> impl Iterator<Item = &Trace> {
        self.order
            .iter()
            .map(|trace| &**trace)
            .filter(move |trace| trace.latest >= since)
    }

    /// Returns the latest `effective_end` of the oldest trace.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.order.front().map(|trace| trace.latest)
    }

    pub(crate) fn source(&self, span: &SpanEntry) -> &Source {
        self.sources.get(self.classes.get(span.class).source)
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
