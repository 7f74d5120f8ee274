//! The propagator of W3C Trace Context, level 2 (<https://www.w3.org/TR/trace-context-2/>).
//!
//! Unlike the propagator of the SDK, it passes on the random flag, combines the lines of `tracestate`, and ignores the
//! context of a request with several `traceparent` lines.

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use otlp_recorder::RANDOM_TRACE_ID;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Length of a `traceparent` of version 00. Later versions may append fields.
const LENGTH: usize = 55;

/// Maximum number of members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

/// Maximum length of a key, and of a value, in a `tracestate`.
const MAX_TEXT: usize = 256;

/// A received `tracestate` with keys that [`TraceState`], which has the grammar of level 1, cannot represent.
struct ReceivedState {
    trace_id: TraceId,
    /// The members that can be represented.
    represented: TraceState,
    header: String,
}

/// The propagator of `traceparent` and `tracestate`.
#[derive(Debug)]
pub(crate) struct TraceContextPropagator {
    fields: [String; 2],
}

impl TraceContextPropagator {
    pub(crate) fn new() -> Self {
        Self {
            fields: [TRACEPARENT, TRACESTATE].map(str::to_owned),
        }
    }
}

impl TextMapPropagator for TraceContextPropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        let (trace_id, span_id) = (span_context.trace_id(), span_context.span_id());
        let flags = known_flags(span_context.trace_flags());
        injector.set(TRACEPARENT, format!("00-{trace_id}-{span_id}-{flags:02x}"));
        let state = span_context.trace_state();
        let header = match cx.get::<ReceivedState>() {
            Some(received) if received.trace_id == trace_id && received.represented == *state => {
                received.header.clone()
            }
            _ => state.header(),
        };
        if !header.is_empty() {
            injector.set(TRACESTATE, header);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let lines = extractor.get_all(TRACEPARENT).unwrap_or_default();
        let [parent] = lines[..] else { return cx.clone() };
        let Some((trace_id, span_id, flags)) = parse(parent) else {
            return cx.clone();
        };
        let lines = extractor.get_all(TRACESTATE).unwrap_or_default();
        let members = members(&lines).unwrap_or_default();
        let state = represented(&members);
        let is_complete = state.into_iter().len() == members.len();
        let span_context = SpanContext::new(trace_id, span_id, flags, true, state.clone());
        if !span_context.is_valid() {
            return cx.clone();
        }
        let cx = cx.with_remote_span_context(span_context);
        if is_complete {
            return cx;
        }
        let members: Vec<String> = members
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        cx.with_value(ReceivedState {
            trace_id,
            represented: state,
            header: members.join(","),
        })
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}

/// Returns the flags that level 2 defines; others must be zero in what is sent.
fn known_flags(flags: TraceFlags) -> TraceFlags {
    flags & (TraceFlags::SAMPLED | RANDOM_TRACE_ID)
}

/// Parses a `traceparent` of any version.
fn parse(header: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (fields, added) = header.trim_matches([' ', '\t']).split_at_checked(LENGTH)?;
    let fields: Vec<&str> = fields.split('-').collect();
    let &[version, trace_id, span_id, flags] = &fields[..] else {
        return None;
    };
    let lengths = fields.iter().map(|field| field.len());
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !lengths.eq([2, 32, 16, 2]) || !fields.iter().all(|field| field.bytes().all(is_hex)) {
        return None;
    }
    let has_valid_end = added.is_empty() || version != "00" && added.starts_with('-');
    if version == "ff" || !has_valid_end {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    Some((trace_id, span_id, known_flags(flags)))
}

/// Returns the members of the list in `lines`, or `None` if it is invalid. Of several members with the same key, the
/// first one is the most recent and is kept.
fn members<'a>(lines: &[&'a str]) -> Option<Vec<(&'a str, &'a str)>> {
    let texts = lines.iter().flat_map(|line| line.split(','));
    let texts = texts.map(|text| text.trim_matches([' ', '\t']));
    let mut members: Vec<(&str, &str)> = Vec::new();
    for (index, text) in texts.filter(|text| !text.is_empty()).enumerate() {
        let (key, value) = text.split_once('=')?;
        if index == MAX_MEMBERS || !is_key(key) || !is_value(value) {
            return None;
        }
        if members.iter().all(|(other, _)| *other != key) {
            members.push((key, value));
        }
    }
    Some(members)
}

fn is_key(key: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= MAX_TEXT
        && key.bytes().next().is_some_and(is_alphanumeric)
        && key
            .bytes()
            .all(|byte| is_alphanumeric(byte) || b"_-*/@".contains(&byte))
}

/// Whether `value`, which does not end with a space, is valid.
fn is_value(value: &str) -> bool {
    (1..=MAX_TEXT).contains(&value.len())
        && value
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

fn represented(members: &[(&str, &str)]) -> TraceState {
    TraceState::from_key_value(members.iter().copied()).unwrap_or_else(|_| {
        let valid = members.iter().copied();
        let valid = valid.filter(|member| TraceState::from_key_value([*member]).is_ok());
        TraceState::from_key_value(valid).unwrap_or_default()
    })
}
