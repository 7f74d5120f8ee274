//! Spans, by trace, oldest trace first. A span is its OTLP encoding and an entry of an index beside it; it is decoded only
//! when somebody looks at it. Every byte is counted, and the oldest traces leave whole when there are too many.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, status::StatusCode};
use prost::Message as _;

use super::{
    ids::{SpanId, TraceId},
    intern::{Interner, Shared},
    memory,
    origin::Origin,
    shape::Shape,
};

/// One trace may take this part of the limit; what is more of it is dropped and counted.
const SHARE_OF_ONE: usize = 16;

/// A sender's clock is believed in so far as it says that a span ended within this time before it came.
const BELIEVED_DELAY: u64 = 60_000_000_000;

/// Where a span is among the others, without decoding it.
#[derive(Clone, Debug)]
pub(crate) struct SpanEntry {
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    /// As the sender said.
    pub(crate) start: u64,
    /// Nanoseconds; 0 when the end is before the start.
    pub(crate) duration: u64,
    /// When it ended, if that can be believed, else when it came: what windows of time go by.
    pub(crate) moment: u64,
    pub(crate) shape: Shared,
    pub(crate) status: Status,
    /// The span in OTLP's protobuf.
    pub(crate) encoded: Arc<[u8]>,
}

/// A span's status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    Unset,
    Ok,
    Error,
}

/// The spans of one trace, as they came.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) id: TraceId,
    pub(crate) spans: Vec<SpanEntry>,
    /// The latest moment of its spans.
    pub(crate) latest: u64,
    /// Spans that came when the trace had taken all it may.
    pub(crate) dropped: u64,
    encodings_bytes: usize,
}

impl Trace {
    fn bytes(&self) -> usize {
        memory::heap(size_of::<Self>())
            + memory::heap(self.spans.capacity() * size_of::<SpanEntry>())
            + self.encodings_bytes
    }

    /// From the first start to the last end.
    pub(crate) fn extent(&self) -> (u64, u64) {
        let start = self.spans.iter().map(|span| span.start).min().unwrap_or(0);
        let end = self
            .spans
            .iter()
            .map(|span| span.start.saturating_add(span.duration))
            .max();
        (start, end.unwrap_or(0).saturating_sub(start))
    }

    /// The earliest span without a parent, or else the earliest kept.
    pub(crate) fn root(&self) -> Option<&SpanEntry> {
        self.spans
            .iter()
            .min_by_key(|span| (span.parent.is_some(), span.start))
    }
}

/// What is kept of spans, within a limit.
#[derive(Debug)]
pub(crate) struct Traces {
    limit: usize,
    /// By age. A trace's number is `first` and its place here.
    order: VecDeque<Box<Trace>>,
    first: u64,
    numbers: HashMap<TraceId, u64>,
    traces_bytes: usize,
    spans: usize,
    pub(crate) origins: Interner<Origin>,
    pub(crate) shapes: Interner<Shape>,
    pub(crate) evicted: u64,
    /// Without the ids a span must have, or beyond what a trace may take.
    pub(crate) refused: u64,
    buffer: Vec<u8>,
}

impl Traces {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            order: VecDeque::new(),
            first: 1,
            numbers: HashMap::new(),
            traces_bytes: 0,
            spans: 0,
            origins: Interner::default(),
            shapes: Interner::default(),
            evicted: 0,
            refused: 0,
            buffer: Vec::new(),
        }
    }

    /// Keeps what came at `now`.
    pub(crate) fn insert(&mut self, request: Vec<ResourceSpans>, now: u64) {
        for from_resource in request {
            for from_scope in from_resource.scope_spans {
                let origin = Origin::intern(
                    &mut self.origins,
                    from_resource.resource.as_ref(),
                    from_scope.scope.as_ref(),
                    self.limit / SHARE_OF_ONE,
                );
                let Some(origin) = origin else {
                    self.refused += from_scope.spans.len() as u64;
                    continue;
                };
                for span in &from_scope.spans {
                    if self.keep(span, origin, now).is_none() {
                        self.refused += 1;
                    }
                    self.evict();
                }
                self.origins.release(origin);
            }
        }
    }

    fn keep(&mut self, span: &Span, origin: Shared, now: u64) -> Option<()> {
        let trace_id = TraceId::from_bytes(&span.trace_id)?;
        let id = SpanId::from_bytes(&span.span_id)?;
        let encoding_bytes = memory::shared(span.encoded_len());
        let allowance = self.limit / SHARE_OF_ONE;
        let known = self.numbers.get(&trace_id).copied();
        if known.is_none() {
            if encoding_bytes > allowance {
                return None;
            }
            self.begin(trace_id);
        }
        let place = known.map_or(self.order.len() as u64 - 1, |number| number - self.first);
        let trace = self.order.get_mut(usize::try_from(place).ok()?)?;
        let before = trace.bytes();
        if before.saturating_add(encoding_bytes) > allowance && known.is_some() {
            trace.dropped += 1;
            return None;
        }
        self.buffer.clear();
        // A vector has always room.
        span.encode(&mut self.buffer).ok()?;
        let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        let moment = moment(span.end_time_unix_nano, now);
        trace.spans.push(SpanEntry {
            id,
            parent: SpanId::from_bytes(&span.parent_span_id),
            start: span.start_time_unix_nano,
            duration,
            moment,
            shape: Shape::intern(&mut self.shapes, &mut self.origins, origin, span),
            status: Status::of(span),
            encoded: self.buffer.as_slice().into(),
        });
        trace.latest = trace.latest.max(moment);
        trace.encodings_bytes += encoding_bytes;
        self.traces_bytes = self.traces_bytes + trace.bytes() - before;
        self.spans += 1;
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        Some(())
    }

    fn begin(&mut self, id: TraceId) {
        self.numbers.insert(id, self.first + self.order.len() as u64);
        memory::grow(&mut self.order);
        let trace = Trace {
            id,
            spans: Vec::new(),
            latest: 0,
            dropped: 0,
            encodings_bytes: 0,
        };
        self.traces_bytes += trace.bytes();
        self.order.push_back(Box::new(trace));
    }

    /// Lets the oldest traces go until the limit is kept.
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
                Shape::release(&mut self.shapes, &mut self.origins, span.shape);
            }
            if self.numbers.capacity() > 4 * self.numbers.len() + 64 {
                self.numbers.shrink_to(2 * self.numbers.len());
                self.order.shrink_to(2 * self.order.len());
            }
        }
    }

    /// All that is taken, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.traces_bytes
            + self.order.capacity() * size_of::<Box<Trace>>()
            + memory::table::<(TraceId, u64)>(self.numbers.capacity())
            + self.shapes.bytes()
            + self.origins.bytes()
            + self.buffer.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn spans(&self) -> usize {
        self.spans
    }

    pub(crate) fn get(&self, id: TraceId) -> Option<&Trace> {
        let number = self.numbers.get(&id)?;
        let place = usize::try_from(number - self.first).ok()?;
        self.order.get(place).map(|trace| &**trace)
    }

    /// Traces newest first with their numbers, from before the number `before` on.
    pub(crate) fn before(&self, before: u64) -> impl Iterator<Item = (u64, &Trace)> {
        let end = usize::try_from(before.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let end = end.min(self.order.len());
        let numbers = (self.first..self.first + end as u64).rev();
        numbers.zip(self.order.range(..end).rev().map(|trace| &**trace))
    }

    /// Traces with a span whose moment is `since` or later, oldest first.
    pub(crate) fn since(&self, since: u64) -> impl Iterator<Item = &Trace> {
        self.order
            .iter()
            .map(|trace| &**trace)
            .filter(move |trace| trace.latest >= since)
    }

    /// The moment of the oldest trace.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.order.front().map(|trace| trace.latest)
    }

    pub(crate) fn origin(&self, span: &SpanEntry) -> &Origin {
        self.origins.get(self.shapes.get(span.shape).origin)
    }
}

impl Status {
    fn of(span: &Span) -> Self {
        match span.status.as_ref().map(|status| status.code()) {
            Some(StatusCode::Error) => Self::Error,
            Some(StatusCode::Ok) => Self::Ok,
            Some(StatusCode::Unset) | None => Self::Unset,
        }
    }
}

/// Clocks of senders may say anything; ours does not go by them further than [`BELIEVED_DELAY`].
fn moment(end: u64, now: u64) -> u64 {
    if (now.saturating_sub(BELIEVED_DELAY)..=now).contains(&end) {
        end
    } else {
        now
    }
}
