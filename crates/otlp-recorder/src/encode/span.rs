//! Encoding of spans. Redaction and limits are applied during recording; when a span ends, its parts are
//! assembled and moved into the queue.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceState};
use opentelemetry_proto::tonic::trace::v1::{SpanFlags, span, status::StatusCode};
use opentelemetry_sdk::trace::{SpanData, SpanLimits};

use super::attributes::Attributes;
use super::fields;
use super::wire::{Writer, nanoseconds};
use crate::text::TextRules;

/// Maximum number of bytes that [`EndedSpan::write`] adds besides name, trace state and status.
const FIXED_FIELDS: usize = 96;

/// Maximum memory in bytes that the attributes of a span keep for the next span.
const MAX_KEPT_BYTES: usize = 2 * 1024;

/// The parts of a span that grow while it is recorded.
#[derive(Debug)]
pub(crate) struct SpanContent {
    pub(crate) attributes: Attributes,
    /// `None` for most spans.
    children: Option<Box<Children>>,
}

#[derive(Debug, Default)]
struct Children {
    events: Messages,
    links: Messages,
}

/// Encoded events or links.
#[derive(Debug, Default)]
struct Messages {
    writer: Writer,
    count: u32,
    dropped: u32,
}

impl Messages {
    /// Writes a message, or counts it as dropped if the limit is reached.
    fn add(&mut self, field: u32, limit: u32, write: impl FnOnce(&mut Writer)) {
        if self.count >= limit {
            self.dropped += 1;
            return;
        }
        self.count += 1;
        self.writer.message(field, write);
    }
}

impl SpanContent {
    pub(crate) fn new(rules: TextRules, limits: &SpanLimits) -> Self {
        Self {
            attributes: Attributes::new(fields::span::ATTRIBUTES, rules, limits.max_attributes_per_span),
            children: None,
        }
    }

    /// Clears the content for the next span.
    pub(crate) fn clear(&mut self) {
        self.attributes.clear(MAX_KEPT_BYTES);
        self.children = None;
    }

    pub(crate) fn add_event(&mut self, event: &Event, limits: &SpanLimits) {
        use fields::span_event::{ATTRIBUTES, DROPPED_ATTRIBUTES, NAME, TIME};
        let rules = self.attributes.text_rules;
        let events = &mut self.children.get_or_insert_default().events;
        events.add(fields::span::EVENTS, limits.max_events_per_span, |writer| {
            writer.fixed64(TIME, nanoseconds(event.timestamp));
            writer.string(NAME, &rules.redacted(&event.name));
            let mut attributes = Attributes::new(ATTRIBUTES, rules, limits.max_attributes_per_event);
            attributes.write_all(&event.attributes, writer);
            let dropped = event.dropped_attributes_count + attributes.dropped;
            writer.varint(DROPPED_ATTRIBUTES, dropped.into());
        });
    }

    pub(crate) fn add_link(&mut self, link: &Link, limits: &SpanLimits) {
        use fields::span_link::{ATTRIBUTES, DROPPED_ATTRIBUTES, FLAGS, SPAN_ID, TRACE_ID, TRACE_STATE};
        let rules = self.attributes.text_rules;
        let context = &link.span_context;
        let links = &mut self.children.get_or_insert_default().links;
        links.add(fields::span::LINKS, limits.max_links_per_span, |writer| {
            writer.bytes_always(TRACE_ID, &context.trace_id().to_bytes());
            writer.bytes_always(SPAN_ID, &context.span_id().to_bytes());
            write_trace_state(rules, writer, TRACE_STATE, context);
            let mut attributes = Attributes::new(ATTRIBUTES, rules, limits.max_attributes_per_link);
            attributes.write_all(&link.attributes, writer);
            let dropped = link.dropped_attributes_count + attributes.dropped;
            writer.varint(DROPPED_ATTRIBUTES, dropped.into());
            writer.fixed32(FLAGS, flags(context, context.is_remote()));
        });
    }
}

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct EndedSpan<'a> {
    pub(crate) context: &'a SpanContext,
    pub(crate) parent: SpanId,
    pub(crate) parent_is_remote: bool,
    /// Name of the span, redacted.
    pub(crate) name: Cow<'a, str>,
    pub(crate) kind: &'a SpanKind,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    pub(crate) content: &'a mut SpanContent,
    pub(crate) status: &'a Status,
}

impl<'a> EndedSpan<'a> {
    /// Completes the encoded span and returns its pieces. Protobuf does not prescribe the order of fields, so
    /// the fields that are known last follow the attributes.
    pub(crate) fn write(self) -> [&'a [u8]; 3] {
        use fields::span::*;
        let content = self.content;
        let (rules, dropped) = (content.attributes.text_rules, content.attributes.dropped);
        let writer = &mut content.attributes.writer;
        writer.reserve(FIXED_FIELDS + self.name.len());
        writer.bytes_always(TRACE_ID, &self.context.trace_id().to_bytes());
        writer.bytes_always(SPAN_ID, &self.context.span_id().to_bytes());
        write_trace_state(rules, writer, TRACE_STATE, self.context);
        if self.parent != SpanId::INVALID {
            writer.bytes_always(PARENT_SPAN_ID, &self.parent.to_bytes());
        }
        writer.string(NAME, &self.name);
        writer.varint(KIND, kind(self.kind) as u64);
        writer.fixed64(START_TIME, nanoseconds(self.start));
        // The clock may have been set back.
        writer.fixed64(END_TIME, nanoseconds(self.end.max(self.start)));
        writer.varint(DROPPED_ATTRIBUTES, dropped.into());
        if let Some(children) = &content.children {
            writer.varint(DROPPED_EVENTS, children.events.dropped.into());
            writer.varint(DROPPED_LINKS, children.links.dropped.into());
        }
        writer.message(STATUS, |writer| write_status(rules, writer, self.status));
        writer.fixed32(FLAGS, flags(self.context, self.parent_is_remote));

        let children = content.children.as_deref();
        let [events, links] = children.map_or([&[][..]; 2], |children| {
            [children.events.writer.bytes(), children.links.writer.bytes()]
        });
        [content.attributes.writer.bytes(), events, links]
    }
}

/// Encodes a span of the SDK and passes the result to `push`. The SDK has applied its limits.
pub(crate) fn encode_sdk_span(rules: TextRules, span: &SpanData, push: impl FnOnce(&[&[u8]])) {
    const UNLIMITED: SpanLimits = SpanLimits {
        max_events_per_span: u32::MAX,
        max_attributes_per_span: u32::MAX,
        max_links_per_span: u32::MAX,
        max_attributes_per_event: u32::MAX,
        max_attributes_per_link: u32::MAX,
    };
    let mut content = SpanContent::new(rules, &UNLIMITED);
    content.attributes.dropped = span.dropped_attributes_count;
    for attribute in &span.attributes {
        content.attributes.set(attribute);
    }
    for event in &span.events.events {
        content.add_event(event, &UNLIMITED);
    }
    for link in &span.links.links {
        content.add_link(link, &UNLIMITED);
    }
    if span.events.dropped_count + span.links.dropped_count > 0 {
        let children = content.children.get_or_insert_default();
        children.events.dropped = span.events.dropped_count;
        children.links.dropped = span.links.dropped_count;
    }
    let ended = EndedSpan {
        context: &span.span_context,
        parent: span.parent_span_id,
        parent_is_remote: span.parent_span_is_remote,
        name: rules.redacted(&span.name),
        kind: &span.span_kind,
        start: span.start_time,
        end: span.end_time,
        content: &mut content,
        status: &span.status,
    };
    push(&ended.write());
}

fn write_status(rules: TextRules, writer: &mut Writer, status: &Status) {
    use fields::status::{CODE, MESSAGE};
    match status {
        Status::Unset => {}
        Status::Ok => writer.varint(CODE, StatusCode::Ok as u64),
        Status::Error { description } => {
            writer.string(MESSAGE, &rules.redacted(description));
            writer.varint(CODE, StatusCode::Error as u64);
        }
    }
}

fn write_trace_state(rules: TextRules, writer: &mut Writer, field: u32, context: &SpanContext) {
    let state = context.trace_state();
    if *state == TraceState::NONE {
        return;
    }
    let header = state.header();
    match rules.redacted(&header) {
        Cow::Borrowed(same) => writer.string(field, same),
        // Redacted in parts, because a key and a value may together look like an address.
        Cow::Owned(_) => {
            let parts = header.split_inclusive([',', '=']);
            writer.string(field, &parts.map(|part| rules.redacted(part)).collect::<String>());
        }
    }
}

/// Returns the W3C trace flags, combined with the OTLP flags about the parent or the linked span.
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
