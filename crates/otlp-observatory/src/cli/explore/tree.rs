//! Prints a trace as a tree: one line per span, indented below its parent, followed by its events and
//! log records.

use serde::Deserialize;
use serde_json::{Map, Value};
use telemetry::escaped;

use super::{
    logs::Record,
    print_line,
    text::{count, duration, timestamp, value},
};

/// Maximum indentation level.
const MAX_INDENT: usize = 30;

#[derive(Deserialize)]
pub(super) struct Trace {
    trace_id: String,
    start_unix_nano: String,
    duration_ns: f64,
    dropped_spans: u64,
    spans: Vec<Span>,
    logs: Vec<Record>,
}

#[derive(Deserialize)]
struct Span {
    span_id: String,
    /// Index of the parent, which precedes the span.
    parent_index: Option<usize>,
    missing_parent: bool,
    clock_offset_ns: f64,
    service: String,
    name: String,
    kind: String,
    start_unix_nano: String,
    duration_ns: f64,
    status: String,
    status_message: String,
    attributes: Map<String, Value>,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    name: String,
    attributes: Map<String, Value>,
}

/// Attributes that describe the operation of a span; the first of them is printed.
const SUBJECT_ATTRIBUTES: [&str; 4] = [
    "db.query.text",
    "url.path",
    "celery.task_name",
    "messaging.destination.name",
];

pub(super) fn print(trace: &Trace) -> anyhow::Result<()> {
    print_line(&format!(
        "trace {}  {}  {}  {}, {}",
        escaped(&trace.trace_id),
        timestamp(&trace.start_unix_nano),
        duration(trace.duration_ns),
        count(trace.spans.len() as u64, "span"),
        count(trace.logs.len() as u64, "log"),
    ))?;
    if trace.dropped_spans > 0 {
        print_line(&format!("{} dropped", count(trace.dropped_spans, "span")))?;
    }
    let mut depths: Vec<usize> = Vec::with_capacity(trace.spans.len());
    for span in &trace.spans {
        let parent = span.parent_index.and_then(|parent| depths.get(parent));
        let depth = parent.map_or(0, |depth| depth + 1);
        depths.push(depth);
        let indent = "  ".repeat(depth.min(MAX_INDENT));
        print_line(&format!(
            "{:>8} {:>8}  {indent}{}",
            offset(&trace.start_unix_nano, &span.start_unix_nano),
            duration(span.duration_ns),
            describe_span(span)
        ))?;
        let print_below = |line: String| print_line(&format!("{:19}{indent}  | {line}", ""));
        for event in &span.events {
            print_below(describe_event(event))?;
        }
        let own = |record: &&Record| record.span_id() == Some(&span.span_id);
        for record in trace.logs.iter().filter(own) {
            print_below(record.short())?;
        }
    }
    // Records without a span in the trace.
    let is_known = |id| trace.spans.iter().any(|span| span.span_id == id);
    let mut others = trace
        .logs
        .iter()
        .filter(|record| !record.span_id().is_some_and(is_known));
    others.try_for_each(|record| print_line(&record.line()))
}

fn describe_span(span: &Span) -> String {
    let mut text = format!(
        "{}  {} ({})",
        escaped(&span.service),
        escaped(&span.name),
        escaped(&span.kind)
    );
    let mut subjects = SUBJECT_ATTRIBUTES
        .iter()
        .filter_map(|name| span.attributes.get(*name));
    if let Some(subject) = subjects.next() {
        text.push_str(&format!("  {}", value(subject)));
    }
    if span.missing_parent {
        text.push_str("  (parent not received)");
    }
    if span.clock_offset_ns != 0.0 {
        text.push_str("  (clock differs from its parent's)");
    }
    if span.status == "error" {
        text.push_str(&format!("  ERROR {}", escaped(&span.status_message)));
    }
    text
}

fn describe_event(event: &Event) -> String {
    let mut text = escaped(&event.name).into_owned();
    for name in ["exception.type", "exception.message"] {
        if let Some(attribute) = event.attributes.get(name) {
            text.push_str(&format!(" {}", value(attribute)));
        }
    }
    text
}

/// Formats the time from the start of the trace to the start of a span, which may be negative.
fn offset(trace_start: &str, span_start: &str) -> String {
    match (trace_start.parse::<u64>(), span_start.parse::<u64>()) {
        (Ok(trace_start), Ok(span_start)) => relative(trace_start, span_start),
        _ => "-".to_owned(),
    }
}

fn relative(trace_start: u64, span_start: u64) -> String {
    let sign = if span_start < trace_start { "-" } else { "" };
    match span_start {
        0 => "-".to_owned(),
        _ => format!("{sign}{}", duration(span_start.abs_diff(trace_start) as f64)),
    }
}
