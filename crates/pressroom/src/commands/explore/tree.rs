//! One trace as a tree: a line for each span below its parent, and below it what happened in it and what it logged.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    logs::Record,
    print_line,
    text::{count, duration, escaped, moment, value},
};

/// Deeper than this nothing is indented further.
const DEEPEST: usize = 30;

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

/// Attributes that say what a span is about, of which the first is shown.
const TELLING: [&str; 4] = [
    "db.query.text",
    "url.path",
    "celery.task_name",
    "messaging.destination.name",
];

pub(super) fn print(trace: &Trace) -> anyhow::Result<()> {
    print_line(&format!(
        "trace {}  {}  {}  {}, {}",
        escaped(&trace.trace_id),
        moment(&trace.start_unix_nano),
        duration(trace.duration_ns),
        count(trace.spans.len() as u64, "span"),
        count(trace.logs.len() as u64, "log"),
    ))?;
    let mut depths: HashMap<&str, usize> = HashMap::new();
    for span in &trace.spans {
        // Every span comes after its parent.
        let parent = span.parent_span_id.as_deref();
        let depth = parent
            .and_then(|parent| depths.get(parent))
            .map_or(0, |depth| depth + 1);
        depths.insert(&span.span_id, depth);
        let indent = "  ".repeat(depth.min(DEEPEST));
        print_line(&format!(
            "{:>8} {:>8}  {indent}{}",
            since(&trace.start_unix_nano, &span.start_unix_nano),
            duration(span.duration_ns),
            described(span)
        ))?;
        let below = |line: String| print_line(&format!("{:19}{indent}  | {line}", ""));
        for event in &span.events {
            below(happened(event))?;
        }
        for record in trace
            .logs
            .iter()
            .filter(|record| record.span_id() == Some(&span.span_id))
        {
            below(record.short())?;
        }
    }
    let known = |id: &str| trace.spans.iter().any(|span| span.span_id == id);
    for record in trace
        .logs
        .iter()
        .filter(|record| !record.span_id().is_some_and(known))
    {
        print_line(&record.line())?;
    }
    Ok(())
}

fn described(span: &Span) -> String {
    let mut text = format!(
        "{}  {} ({})",
        escaped(&span.service),
        escaped(&span.name),
        escaped(&span.kind)
    );
    if let Some(telling) = TELLING.iter().find_map(|name| span.attributes.get(*name)) {
        text.push_str(&format!("  {}", value(telling)));
    }
    if span.status == "error" {
        text.push_str(&format!("  ERROR {}", escaped(&span.status_message)));
    }
    text
}

fn happened(event: &Event) -> String {
    let mut text = escaped(&event.name).into_owned();
    for name in ["exception.type", "exception.message"] {
        if let Some(said) = event.attributes.get(name) {
            text.push_str(&format!(" {}", value(said)));
        }
    }
    text
}

/// How long after the beginning of the trace.
fn since(beginning: &str, moment: &str) -> String {
    match (beginning.parse::<u64>(), moment.parse::<u64>()) {
        (Ok(beginning), Ok(moment)) => duration(moment.saturating_sub(beginning) as f64),
        _ => "-".to_owned(),
    }
}
