//! Spans as the bytes that they will be in a request: written while they are recorded, put together when they end, and
//! handed to the queue. What is done to them on the way out (one value for each key, masking, limits) is done while they
//! are written. The numbers are those of the fields in OTLP's `trace/v1/trace.proto`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceState};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{SpanFlags, span, status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self, SpanData, SpanLimits, SpanProcessor};

use super::attributes::Attributes;
use super::frame::Batch;
use super::queue::Queue;
use super::tidy::Tidy;
use super::wire::{FIXED32, FIXED64, LENGTH, VARINT, Wire, nanoseconds};

const OF_SPANS: u32 = 9;
const OF_EVENTS: u32 = 3;
const OF_LINKS: u32 = 4;

/// Of what [`Ended::head`] writes, in bytes.
const LONGEST_HEAD: usize = 64;

/// The most bytes of each of its parts that a span which has ended keeps for the next one.
const KEPT_BYTES: usize = 2 * 1024;

/// What a span consists of besides its name and its end, as far as it has been recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) attributes: Attributes,
    /// Few spans have any.
    more: Option<Box<More>>,
    limits: &'static SpanLimits,
}

#[derive(Debug, Default)]
struct More {
    events: Parts,
    links: Parts,
}

/// Events or links.
#[derive(Debug, Default)]
struct Parts {
    wire: Wire,
    count: u32,
    dropped: u32,
}

impl Parts {
    fn admits(&mut self, limit: u32) -> bool {
        let admitted = self.count < limit;
        *(if admitted {
            &mut self.count
        } else {
            &mut self.dropped
        }) += 1;
        admitted
    }
}

impl Recorded {
    pub(crate) fn new(tidy: Tidy, limits: &'static SpanLimits) -> Self {
        Self {
            attributes: Attributes::new(OF_SPANS, tidy, limits.max_attributes_per_span),
            more: None,
            limits,
        }
    }

    /// Forgets everything, for another span that is recorded here.
    pub(crate) fn clear(&mut self) {
        self.attributes.clear(KEPT_BYTES);
        self.more = None;
    }

    /// `text` as it may leave.
    pub(crate) fn masked<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.attributes.tidy.masked(text)
    }

    pub(crate) fn event(&mut self, event: &Event) {
        let (tidy, limits) = (self.attributes.tidy, self.limits);
        let events = &mut self.more.get_or_insert_default().events;
        if !events.admits(limits.max_events_per_span) {
            return;
        }
        let attributes = attributes_of(
            tidy,
            OF_EVENTS,
            limits.max_attributes_per_event,
            &event.attributes,
        );
        events.wire.message(11, |wire| {
            wire.fixed64(1, nanoseconds(event.timestamp));
            wire.text(2, &tidy.masked(&event.name));
            attributes.write(wire);
            let dropped = event.dropped_attributes_count + attributes.dropped();
            wire.number(4, dropped.into());
        });
    }

    pub(crate) fn link(&mut self, link: &Link) {
        let (tidy, limits) = (self.attributes.tidy, self.limits);
        let links = &mut self.more.get_or_insert_default().links;
        if !links.admits(limits.max_links_per_span) {
            return;
        }
        let attributes = attributes_of(tidy, OF_LINKS, limits.max_attributes_per_link, &link.attributes);
        let context = &link.span_context;
        links.wire.message(13, |wire| {
            wire.id(1, context.trace_id().to_bytes());
            wire.id(2, context.span_id().to_bytes());
            trace_state(tidy, wire, context);
            attributes.write(wire);
            let dropped = link.dropped_attributes_count + attributes.dropped();
            wire.number(5, dropped.into());
            wire.fixed32(6, flags(context, context.is_remote()));
        });
    }
}

/// The attributes of an event or a link.
fn attributes_of(tidy: Tidy, field: u32, limit: u32, given: &[KeyValue]) -> Attributes {
    let mut attributes = Attributes::new(field, tidy, limit);
    given.iter().for_each(|attribute| attributes.set(attribute));
    attributes
}

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) context: &'a SpanContext,
    pub(crate) parent: SpanId,
    pub(crate) parent_is_remote: bool,
    /// As it may leave.
    pub(crate) name: Cow<'a, str>,
    pub(crate) kind: &'a SpanKind,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    pub(crate) recorded: &'a mut Recorded,
    pub(crate) status: &'a Status,
}

impl<'a> Ended<'a> {
    /// Puts the span into the queue, as one of `scope`, or as one of this crate's own.
    pub(crate) fn push(self, queue: &Queue<Batch>, scope: Option<&InstrumentationScope>) {
        let (head, length) = self.head();
        let recorded = self.rest();
        let [fixed, attributes] = recorded.attributes.pieces();
        let more = recorded.more.as_deref();
        let [events, links] = more.map_or([&[][..]; 2], |more| {
            [more.events.wire.bytes(), more.links.wire.bytes()]
        });
        let span = [&head[..length], fixed, attributes, events, links];
        queue.push(|batch| match scope {
            Some(scope) => batch.add_of(scope, None, &span),
            None => batch.add(&span),
        });
    }

    /// What every span has, which is as long in each but for the parent's id, put together at once: a span is written in
    /// half of the time that its fields one after the other take. Protobuf leaves their order open.
    fn head(&self) -> ([u8; LONGEST_HEAD], usize) {
        const fn tag(field: u8, kind: u32) -> u8 {
            field << 3 | kind as u8
        }
        let mut head = [0; LONGEST_HEAD];
        let mut length = 0;
        let mut put = |bytes: &[u8]| {
            head[length..length + bytes.len()].copy_from_slice(bytes);
            length += bytes.len();
        };
        put(&[tag(1, LENGTH), 16]);
        put(&self.context.trace_id().to_bytes());
        put(&[tag(2, LENGTH), 8]);
        put(&self.context.span_id().to_bytes());
        put(&[tag(6, VARINT), kind(self.kind) as u8, tag(7, FIXED64)]);
        put(&nanoseconds(self.start).to_le_bytes());
        put(&[tag(8, FIXED64)]);
        put(&nanoseconds(self.end).to_le_bytes());
        // Field 16, whose tag takes two bytes.
        put(&[tag(0, FIXED32) | 0x80, 1]);
        put(&flags(self.context, self.parent_is_remote).to_le_bytes());
        if self.parent != SpanId::INVALID {
            put(&[tag(4, LENGTH), 8]);
            put(&self.parent.to_bytes());
        }
        (head, length)
    }

    /// Writes behind the attributes what is neither in the head nor an event or a link.
    fn rest(self) -> &'a Recorded {
        let recorded = self.recorded;
        let (tidy, dropped) = (recorded.attributes.tidy, recorded.attributes.dropped());
        let wire = recorded.attributes.after();
        trace_state(tidy, wire, self.context);
        wire.text(5, &self.name);
        wire.number(10, dropped.into());
        if let Some(more) = &recorded.more {
            wire.number(12, more.events.dropped.into());
            wire.number(14, more.links.dropped.into());
        }
        match self.status {
            Status::Unset => wire.bytes_set(15, &[]),
            Status::Ok => wire.message(15, |wire| wire.number(3, status::StatusCode::Ok as u64)),
            Status::Error { description } => wire.message(15, |wire| {
                wire.text(2, &tidy.masked(description));
                wire.number(3, status::StatusCode::Error as u64);
            }),
        }
        recorded
    }
}

/// Puts the spans of the SDK's tracers into the queue: those that are not made by this crate.
#[derive(Debug)]
pub(crate) struct QueuedSpans {
    queue: Arc<Queue<Batch>>,
    tidy: Tidy,
}

impl QueuedSpans {
    pub(crate) fn new(queue: Arc<Queue<Batch>>, tidy: Tidy) -> Self {
        Self { queue, tidy }
    }
}

/// What the SDK has limited already.
static UNLIMITED: SpanLimits = SpanLimits {
    max_events_per_span: u32::MAX,
    max_attributes_per_span: u32::MAX,
    max_links_per_span: u32::MAX,
    max_attributes_per_event: u32::MAX,
    max_attributes_per_link: u32::MAX,
};

impl SpanProcessor for QueuedSpans {
    fn on_start(&self, _: &mut trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let mut recorded = Recorded::new(self.tidy, &UNLIMITED);
        recorded.attributes.dropped_before(span.dropped_attributes_count);
        span.attributes
            .iter()
            .for_each(|attribute| recorded.attributes.set(attribute));
        span.events.events.iter().for_each(|event| recorded.event(event));
        span.links.links.iter().for_each(|link| recorded.link(link));
        if span.events.dropped_count + span.links.dropped_count > 0 {
            let more = recorded.more.get_or_insert_default();
            more.events.dropped = span.events.dropped_count;
            more.links.dropped = span.links.dropped_count;
        }
        let ended = Ended {
            context: &span.span_context,
            parent: span.parent_span_id,
            parent_is_remote: span.parent_span_is_remote,
            name: self.tidy.masked(&span.name),
            kind: &span.span_kind,
            start: span.start_time,
            end: span.end_time,
            recorded: &mut recorded,
            status: &span.status,
        };
        ended.push(&self.queue, Some(&span.instrumentation_scope));
    }

    /// Asks for an export and does not wait for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.queue.flush();
        Ok(())
    }

    /// Takes no more spans; the export thread sees to those that wait.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.queue.close();
        Ok(())
    }
}

fn trace_state(tidy: Tidy, wire: &mut Wire, of: &SpanContext) {
    let state = of.trace_state();
    if *state != TraceState::NONE {
        wire.text(3, &tidy.masked(&state.header()));
    }
}

/// The W3C flags, and above them whether the parent, or what is linked to, is in another process.
fn flags(context: &SpanContext, remote: bool) -> u32 {
    let mut flags = u32::from(context.trace_flags().to_u8()) | SpanFlags::ContextHasIsRemoteMask as u32;
    if remote {
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    flags
}

fn kind(kind: &SpanKind) -> span::SpanKind {
    match kind {
        SpanKind::Client => span::SpanKind::Client,
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Producer => span::SpanKind::Producer,
        SpanKind::Consumer => span::SpanKind::Consumer,
        SpanKind::Internal => span::SpanKind::Internal,
    }
}

#[cfg(test)]
mod tests;
