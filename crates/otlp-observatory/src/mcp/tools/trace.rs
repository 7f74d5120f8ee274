//! `get_trace`: a trace as an indented list, or one of its spans with all details.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{logs::Record, query::Query};
use crate::{
    mcp::{
        answer::{Answer, attribute, clipped},
        source::{Failure, Source},
        tree::{self, Branch, Entry},
    },
    text::{count, duration, timestamp, value},
};

/// Maximum length of a name and of a status message, in characters.
const MAX_NAME: usize = 200;

/// Maximum length of the value of an attribute in the details of a span, in characters.
const MAX_DETAIL: usize = 2_000;

/// Minimum length of the start of a span id that the list shows.
const MIN_SHORT_ID: usize = 6;

/// Number of places that the summary names for their own time.
const TOP: usize = 3;

/// Minimum share of the own time of a place in the time of the trace.
const MIN_SHARE: f64 = 0.1;

/// Attributes that describe the operation of a span; the first of them is shown.
const SUBJECTS: [&str; 9] = [
    "db.query.text",
    "db.statement",
    "url.full",
    "http.url",
    "url.path",
    "http.target",
    "celery.task_name",
    "messaging.destination.name",
    "http.route",
];

/// HTTP status codes, in the names of the new and the old conventions.
const HTTP_STATUS: [&str; 2] = ["http.response.status_code", "http.status_code"];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetTrace {
    /// Trace id: 32 hexadecimal digits
    trace_id: String,
    /// Start of a span id (the digits after # in the list): that span with all attributes, events and stack traces, and
    /// the spans below it
    span: Option<String>,
    /// Maximum size of the answer in bytes, 1024 to 65536 (default 4096)
    max_bytes: Option<usize>,
}

#[derive(Deserialize)]
struct Trace {
    trace_id: String,
    start_unix_nano: String,
    duration_ns: f64,
    dropped_spans: u64,
    spans: Vec<Span>,
    logs: Vec<Record>,
}

#[derive(Deserialize)]
struct Span {
    span_id: Option<String>,
    #[serde(skip)]
    short_id: String,
    /// Index of the parent, which is smaller than that of the span.
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
    resource: Map<String, Value>,
    events: Vec<Event>,
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Event {
    name: String,
    time_unix_nano: String,
    attributes: Map<String, Value>,
}

#[derive(Deserialize)]
struct Link {
    trace_id: Option<String>,
    span_id: Option<String>,
}

impl Query for GetTrace {
    const NAME: &'static str = "get_trace";
    const TITLE: &'static str = "Show a trace";
    const DESCRIPTION: &'static str = "\
Shows one trace: where its time went, then its spans as an indented list (start, duration, service, name, kind, statement \
or URL, HTTP status, ERROR with its message, #span), each with its exceptions and log records below it. Equal siblings are \
one line (100 x SELECT ... is an N+1). If not all fit, failed and long spans are kept. With span: one span in full.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        // Otherwise a slow clock would put a span before its cause.
        let aligned = vec![("align", "clocks".to_owned())];
        let mut trace: Trace = source.get(&["traces", &self.trace_id], &aligned).await?;
        trace.shorten_ids();
        match &self.span {
            None => Ok(trace.list(self.max_bytes)),
            Some(span) => trace.details(span, self.max_bytes),
        }
    }
}

impl Trace {
    /// Sets the short ids: starts of the ids that are as long as it takes to tell them apart.
    fn shorten_ids(&mut self) {
        let mut ids: Vec<&str> = self
            .spans
            .iter()
            .filter_map(|span| span.span_id.as_deref())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let shared = |pair: &[&str]| {
            pair[0]
                .bytes()
                .zip(pair[1].bytes())
                .take_while(|(a, b)| a == b)
                .count()
        };
        let length = ids
            .windows(2)
            .map(|pair| shared(pair) + 1)
            .fold(MIN_SHORT_ID, usize::max);
        for span in &mut self.spans {
            let id = span.span_id.as_deref().unwrap_or_default();
            span.short_id = format!("#{}", id.get(..length).unwrap_or(id));
        }
    }

    /// Returns the time since the start of the trace, in nanoseconds.
    fn since_start(&self, unix_nano: &str) -> f64 {
        match (unix_nano.parse::<i128>(), self.start_unix_nano.parse::<i128>()) {
            (Ok(time), Ok(start)) => (time - start) as f64,
            _ => 0.0,
        }
    }

    /// Returns the whole trace.
    fn list(&self, max_bytes: Option<usize>) -> String {
        let failed = self.spans.iter().filter(|span| span.is_failed()).count();
        let mut head = format!(
            "Trace {}: {}, {}, {}, {}, started {}.",
            self.trace_id,
            duration(self.duration_ns),
            count(self.spans.len() as u64, "span"),
            count(failed as u64, "error"),
            count(self.logs.len() as u64, "log"),
            timestamp(&self.start_unix_nano),
        );
        if self.dropped_spans > 0 {
            head.push_str(&format!(
                " {} did not fit into memory.",
                count(self.dropped_spans, "more span")
            ));
        }
        let mut answer = Answer::new(max_bytes, &head);
        let branches = self.branches();
        for line in self.summary(&branches) {
            answer.line(&line);
        }
        let omitted = self.tree(&mut answer, &branches, 0..branches.len());
        let has_no_span = |record: &&Record| !self.spans.iter().any(|span| span.owns(record));
        for record in self.logs.iter().filter(has_no_span) {
            answer.line(&format!(
                "{}  {}",
                timestamp(&record.time_unix_nano),
                record.short()
            ));
        }
        let foot = foot(omitted, answer.cut());
        answer.finish(&foot)
    }

    /// Returns the services, and the spans with the most own time.
    fn summary(&self, branches: &[Branch]) -> Vec<String> {
        let mut services: BTreeMap<&str, u64> = BTreeMap::new();
        for span in &self.spans {
            *services.entry(&span.service).or_default() += 1;
        }
        let services: Vec<_> = services
            .into_iter()
            .map(|(service, spans)| format!("{} ({})", clipped(service, MAX_NAME), count(spans, "span")))
            .collect();
        let mut lines = vec![format!("services: {}", services.join(", "))];
        // By place, because many short spans may take the time together.
        let mut places: HashMap<(&str, &str), (f64, usize, usize)> = HashMap::new();
        for (index, own) in tree::own_times(branches).into_iter().enumerate() {
            let span = &self.spans[index];
            let (time, number, _) = places
                .entry((&span.service, &span.name))
                .or_insert((0.0, 0, index));
            *time += own;
            *number += 1;
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by(|(_, a), (_, b)| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
        for ((service, name), (time, number, first)) in places.into_iter().take(TOP) {
            let share = time / self.duration_ns.max(1.0);
            if share >= MIN_SHARE {
                lines.push(format!(
                    "own time: {} ({:.0} %) in {}: {}, {} {}",
                    duration(time),
                    share * 100.0,
                    clipped(service, MAX_NAME),
                    clipped(name, MAX_NAME),
                    count(number as u64, "span"),
                    self.spans[first].short_id,
                ));
            }
        }
        lines
    }

    /// Adds a span and those below it, with their events and records. Returns the number of spans left out.
    fn tree(&self, answer: &mut Answer, branches: &[Branch], part: Range<usize>) -> usize {
        let mut branches = branches[part.clone()].to_vec();
        for branch in &mut branches {
            branch.parent = branch.parent.and_then(|parent| parent.checked_sub(part.start));
        }
        let entries = tree::entries(&branches);
        let spans = &self.spans[part];
        let texts: Vec<_> = entries.iter().map(|entry| self.entry(entry, spans)).collect();
        let (lines, omitted) = tree::fit(&entries, &texts, answer.room());
        for line in lines {
            answer.line(&line);
        }
        omitted
    }

    fn branches(&self) -> Vec<Branch> {
        let branch = |span: &Span| Branch {
            parent: span.parent_index,
            kind: format!("{}\0{}\0{}", span.service, span.kind, span.name),
            is_failed: span.is_failed(),
            duration: span.duration_ns,
            start: self.since_start(&span.start_unix_nano),
        };
        self.spans.iter().map(branch).collect()
    }

    /// Returns the line of one span or of equal siblings, and what belongs below it.
    fn entry(&self, entry: &Entry, spans: &[Span]) -> Vec<String> {
        let spans: Vec<&Span> = entry.spans.iter().map(|&span| &spans[span]).collect();
        let first = spans[0];
        let offset = self.since_start(&first.start_unix_nano);
        let total: f64 = spans.iter().map(|span| span.duration_ns).sum();
        let mut line = format!("+{} {}  ", signed(offset), duration(total));
        if spans.len() > 1 {
            line.push_str(&format!("{} x ", spans.len()));
        }
        line.push_str(&first.described());
        if spans.len() > 1 {
            let longest = spans.iter().map(|span| span.duration_ns).fold(0.0, f64::max);
            line.push_str(&format!(" (longest {})", duration(longest)));
        }
        let mut lines = vec![line];
        lines.extend(first.events.iter().map(|event| format!("  | {}", event.short())));
        // Records of equal siblings are equal, too, most of the time.
        let records = self.logs.iter().filter(|record| first.owns(record));
        lines.extend(records.map(|record| format!("  | {}", record.short())));
        lines
    }

    /// Returns the span whose id starts with `id`, with all that is known about it, and the spans below it.
    fn details(&self, id: &str, max_bytes: Option<usize>) -> Result<String, Failure> {
        let id = id.trim_start_matches('#').to_ascii_lowercase();
        let has_id = |span: &Span| {
            span.span_id
                .as_ref()
                .is_some_and(|span| !id.is_empty() && span.starts_with(&id))
        };
        let index = self.spans.iter().position(has_id);
        let index =
            index.ok_or("the trace has no span with this id; call get_trace without span for a list")?;
        let span = &self.spans[index];
        let branches = self.branches();
        let mut answer = Answer::new(max_bytes, &format!("Span of trace {}:", self.trace_id));
        for line in span.details() {
            answer.line(&line);
        }
        for record in self.logs.iter().filter(|record| span.owns(record)) {
            answer.line(&format!(
                "log {}  {}",
                timestamp(&record.time_unix_nano),
                record.short()
            ));
        }
        let end = (index + 1..branches.len())
            .find(|&below| branches[below].parent.is_none_or(|parent| parent < index))
            .unwrap_or(branches.len());
        let below = index + 1..end;
        if !below.is_empty() {
            answer.line("spans below:");
        }
        let omitted = self.tree(&mut answer, &branches, below);
        let foot = foot(omitted, answer.cut());
        Ok(answer.finish(&foot))
    }
}

impl Span {
    fn is_failed(&self) -> bool {
        self.status == "error"
    }

    fn owns(&self, record: &Record) -> bool {
        self.span_id.is_some() && self.span_id == record.span_id
    }

    /// Returns the span on one line, without its times.
    fn described(&self) -> String {
        let mut text = format!(
            "{}: {} [{}]",
            clipped(&self.service, MAX_NAME),
            clipped(&self.name, MAX_NAME),
            self.kind
        );
        let first = |keys: &[&str]| keys.iter().find_map(|key| self.attributes.get(*key));
        if let Some(subject) = first(&SUBJECTS)
            .map(value)
            .filter(|subject| !self.name.contains(&**subject))
        {
            text.push_str(&format!(" {}", clipped(&subject, MAX_NAME)));
        }
        if let Some(status) = first(&HTTP_STATUS) {
            text.push_str(&format!(" -> {}", clipped(&value(status), MAX_NAME)));
        }
        if self.is_failed() {
            text.push_str(&format!(" ERROR {}", clipped(&self.status_message, MAX_NAME)));
        }
        if self.missing_parent {
            text.push_str(" (its parent is missing)");
        }
        if self.clock_offset_ns != 0.0 {
            text.push_str(&format!(" (clock off by {})", signed(-self.clock_offset_ns)));
        }
        if !self.links.is_empty() {
            text.push_str(&format!(" ({})", count(self.links.len() as u64, "link")));
        }
        text.push_str(&format!(" {}", self.short_id));
        text
    }

    /// Returns everything about the span, one line each.
    fn details(&self) -> Vec<String> {
        let mut lines = vec![
            self.described(),
            format!(
                "start {}, duration {}",
                timestamp(&self.start_unix_nano),
                duration(self.duration_ns)
            ),
        ];
        let written = |(key, value): (&String, &Value)| {
            format!(
                "{}={}",
                clipped(key, MAX_NAME),
                clipped(&self::value(value), MAX_DETAIL)
            )
        };
        lines.extend(self.attributes.iter().map(written));
        for event in &self.events {
            lines.push(format!(
                "event {} at {}",
                clipped(&event.name, MAX_NAME),
                timestamp(&event.time_unix_nano)
            ));
            lines.extend(
                event
                    .attributes
                    .iter()
                    .map(written)
                    .map(|line| format!("  {line}")),
            );
        }
        for Link { trace_id, span_id } in &self.links {
            let id = |id: &Option<String>| id.clone().unwrap_or_default();
            lines.push(format!("link to trace {} span {}", id(trace_id), id(span_id)));
        }
        let resource: Vec<_> = self
            .resource
            .iter()
            .filter_map(|(key, value)| attribute(key, value))
            .collect();
        lines.push(format!("resource: {}", resource.join(" ")));
        lines
    }
}

impl Event {
    /// Returns name and attributes; an exception as its type, message and frames.
    fn short(&self) -> String {
        let mut attributes = self.attributes.clone();
        let mut taken = |key: &str| attributes.remove(key).map(|given| value(&given));
        let exception = ["exception.type", "exception.message"].map(&mut taken);
        let mut parts = vec![clipped(&self.name, MAX_NAME).into_owned()];
        let exception: Vec<_> = exception
            .iter()
            .flatten()
            .map(|text| clipped(text, MAX_NAME))
            .collect();
        if !exception.is_empty() {
            parts.push(exception.join(": "));
        }
        parts.extend(attributes.iter().filter_map(|(key, value)| attribute(key, value)));
        parts.join(" ")
    }
}

/// Formats a time that may be negative.
fn signed(nanoseconds: f64) -> String {
    let sign = if nanoseconds < 0.0 { "-" } else { "" };
    format!("{sign}{}", duration(nanoseconds.abs()))
}

/// Tells what was left out.
fn foot(spans: usize, lines: usize) -> String {
    let mut parts = Vec::new();
    if spans > 0 {
        parts.push(count(spans as u64, "shorter span"));
    }
    if lines > 0 {
        parts.push(count(lines as u64, "line"));
    }
    if parts.is_empty() {
        return String::new();
    }
    format!(
        "{} left out: pass span=#... for a part of the trace, or a larger max_bytes.\n",
        parts.join(" and ")
    )
}
