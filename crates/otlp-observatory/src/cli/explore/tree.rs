//! Prints a trace as a tree: one line per span, indented below its parent, followed by its events and
//! log records.

use std::collections::HashMap;

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
    spans: Vec<Span>,
    logs: Vec<Record>,
}

#[derive(Deserialize)]
struct Span {
    span_id: String,
    parent_span_id: Option<String>,
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
    let mut depths: HashMap<&str, usize> = HashMap::new();
    for span in &trace.spans {
        // The observatory lists every span after its parent.
        let parent = span.parent_span_id.as_deref().and_then(|id| depths.get(id));
        let depth = parent.map_or(0, |depth| depth + 1);
        depths.insert(&span.span_id, depth);
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

/// Formats the time from the start of the trace to the start of a span.
fn offset(trace_start: &str, span_start: &str) -> String {
    match (trace_start.parse::<u64>(), span_start.parse::<u64>()) {
        (Ok(trace_start), Ok(span_start)) => duration(span_start.saturating_sub(trace_start) as f64),
        _ => "-".to_owned(),
    }
}
