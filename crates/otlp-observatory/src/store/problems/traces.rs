//! Problems in traces.

use std::{collections::HashMap, sync::Arc};

use memchr::memmem;
use opentelemetry_proto::tonic::{common::v1::KeyValue, trace::v1::Span};
use prost::Message as _;

use super::{
    errors::Error,
    groups::{Execution, Groups, Kind, NUMBER, Occurrence},
    restarts::{Restarts, instance},
    statement::normalize,
};
use crate::store::{
    aliases::Key,
    intern::InternId,
    scale,
    source::text_of,
    span_class::{Role, SpanClass},
    traces::{SpanEntry, Trace, Traces},
    waterfall::{self, Layout, Node},
};

const MS: u64 = 1_000_000;

/// Duration from which a statement is slow.
const SLOW_STATEMENT: u64 = 100 * MS;

/// Duration from which a request, a call or a task is slow.
const SLOW_OPERATION: u64 = 1_000 * MS;

/// Duration from which an operation waits for a connection.
const POOL_WAIT: u64 = 50 * MS;

/// Time between sending and receipt from which a message waits in a queue.
const QUEUE_DELAY: u64 = 2_000 * MS;

/// Number of equal statements or calls of one operation that could have been one.
const MANY: usize = 5;

/// Number of failures after which equal calls are retries.
const RETRIES: usize = 3;

/// Time after which a parent that has not arrived is missing.
const PARENT_GRACE: u64 = 5_000 * MS;

/// Maximum number of equal spans whose statements are compared.
const MAX_COMPARED: usize = 1_000;

/// Beginnings of statements that do not read or write rows.
const CONTROL: [&str; 9] = [
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "release",
    "set ",
    "start transaction",
    "ping",
    "select ?",
];

/// States of tasks that are failures; a retry is an execution that failed.
const FAILED_STATES: [&str; 4] = ["FAILURE", "REJECTED", "RETRY", "REVOKED"];

/// Finds the problems of traces.
pub(super) struct Inspector<'a> {
    traces: &'a Traces,
    groups: &'a mut Groups,
    restarts: &'a mut Restarts,
    now: u64,
    /// Time at which each source was first seen.
    sources: HashMap<InternId, u64>,
    keys: Keys,
}

/// Keys of attributes that identify messages and statements.
struct Keys {
    message: Vec<Key>,
    statement: Vec<Key>,
}

/// Trace with the relations between its spans.
struct Family<'a> {
    trace: &'a Trace,
    nodes: Vec<Node>,
    layout: Layout,
    has_failed_child: Vec<bool>,
}

impl<'a> Family<'a> {
    fn new(traces: &Traces, trace: &'a Trace) -> Self {
        let nodes = scale::nodes(traces, trace.spans.iter());
        let layout = waterfall::lay_out(&nodes, false);
        let mut has_failed_child = vec![false; nodes.len()];
        for (span, parent) in trace.spans.iter().zip(&layout.parents) {
            if let Some(parent) = parent.filter(|_| span.failed) {
                has_failed_child[parent] = true;
            }
        }
        Self {
            trace,
            nodes,
            layout,
            has_failed_child,
        }
    }
}

impl<'a> Inspector<'a> {
    pub(super) fn new(
        traces: &'a Traces,
        groups: &'a mut Groups,
        restarts: &'a mut Restarts,
        now: u64,
    ) -> Self {
        let keys = |keys: &[&str]| keys.iter().map(|key| Key::new(key)).collect();
        Self {
            traces,
            groups,
            restarts,
            now,
            sources: HashMap::new(),
            keys: Keys {
                message: keys(&["messaging.message.id", "celery.task_id"]),
                statement: keys(&["db.query.text", "db.query.summary"]),
            },
        }
    }

    pub(super) fn inspect(&mut self, trace: &Trace) {
        let family = Family::new(self.traces, trace);
        if trace.spans.iter().any(|span| span.failed) {
            self.groups.add_failed_trace(trace.id);
        }
        for (at, span) in trace.spans.iter().enumerate() {
            let class = self.traces.classes.get(span.class);
            let first = self.sources.entry(class.source).or_insert(span.effective_end);
            *first = span.effective_end.min(*first);
            self.operation(&family, at, class);
            self.relation(&family, at, class);
        }
        self.repetitions(&family);
    }

    /// Reports the sources that were seen.
    pub(super) fn finish(self) {
        for (source, first) in self.sources {
            let source = self.traces.sources.get(source);
            self.restarts.see(&source.service, &instance(source), first);
        }
    }

    fn service(&self, span: &SpanEntry) -> &'a Arc<str> {
        &self.traces.source(span).service
    }

    /// Returns the method and route, the task, or the name of a span.
    fn label(&self, span: &SpanEntry) -> Arc<str> {
        let class = self.traces.classes.get(span.class);
        match &class.role {
            Role::Task { task: Some(task), .. } => task.clone(),
            _ => class.route(),
        }
    }

    /// Returns an occurrence that is one span.
    fn one(&self, family: &Family<'_>, span: &SpanEntry, kind: Kind, subject: String) -> Occurrence {
        Occurrence {
            kind,
            service: self.service(span).clone(),
            subject,
            count: 1,
            time: span.effective_end,
            total: span.duration,
            max: span.duration,
            trace: Some(family.trace.id),
            span: Some(span.id),
        }
    }

    /// Inspects what a span did.
    fn operation(&mut self, family: &Family<'_>, at: usize, class: &SpanClass) {
        let span = &family.trace.spans[at];
        let label = || self.label(span);
        let mut found = Vec::new();
        if self.traces.source(span).service.starts_with("unknown_service") {
            let subject = format!("{} has no service name; set `OTEL_SERVICE_NAME`", label());
            found.push((Kind::UnnamedService, subject));
        }
        let is_pool = is_pool(&class.name);
        let is_slow = span.duration >= SLOW_OPERATION;
        match &class.role {
            _ if is_pool && !span.failed && span.duration >= POOL_WAIT => {
                found.push((Kind::PoolWait, format!("{} waited for a connection", label())));
            }
            Role::Request { .. } if is_slow => {
                found.push((Kind::SlowRequest, format!("{} is slow", label())));
            }
            Role::Call { .. } if is_slow => {
                found.push((Kind::SlowCall, format!("the call {} is slow", label())));
            }
            Role::Task { .. } if is_slow => {
                found.push((Kind::SlowTask, format!("{} is slow", label())));
            }
            Role::Database { .. } if span.duration >= SLOW_STATEMENT => {
                found.push((Kind::SlowStatement, self.statement(span, &label())));
            }
            _ => {}
        }
        if let Role::Request { .. } | Role::Call { .. } = &class.role
            && let Some(code) = status_code(&span.encoded)
            && let Some(problem) = self.wrong_status(family, at, class, code)
        {
            found.push((Kind::WrongStatus, problem));
        }
        if let Role::Task { state, .. } = &class.role {
            self.task(family, span, state.as_deref());
        } else if span.failed && !family.has_failed_child[at] {
            found.push(self.error(span, is_pool));
        }
        for (kind, subject) in found {
            self.groups.add(self.one(family, span, kind, subject));
        }
    }

    fn error(&self, span: &SpanEntry, is_pool: bool) -> (Kind, String) {
        let error = Error::of_span(&decode(span));
        let kind = if is_pool {
            Kind::PoolExhausted
        } else {
            error.kind()
        };
        let label = self.label(span);
        let place = if error.place.is_empty() {
            &*label
        } else {
            &*error.place
        };
        let name = error.label();
        let subject = match name.is_empty() {
            true => format!("{place} failed"),
            false => format!("{name} in {place}"),
        };
        (kind, subject)
    }

    fn task(&mut self, family: &Family<'_>, span: &SpanEntry, state: Option<&str>) {
        let label = &self.label(span);
        let failed = span.failed || state.is_some_and(|state| FAILED_STATES.contains(&state));
        let decoded = decode(span);
        if failed {
            let error = Error::of_span(&decoded);
            let mut subject = format!("{label} failed");
            for (before, part) in [(": ", error.label()), (" in ", error.place)] {
                if !part.is_empty() {
                    subject.push_str(before);
                    subject.push_str(&part);
                }
            }
            self.groups.add(self.one(family, span, Kind::FailedTask, subject));
        }
        let mut ids = self.keys.message.iter();
        if let Some(id) = ids.find_map(|key| text(key, &decoded.attributes)) {
            let message = (self.service(span).clone(), id);
            let execution = Execution {
                time: span.effective_end,
                duration: span.duration,
                trace: family.trace.id,
                span: span.id,
            };
            self.groups.add_execution(message, label, failed, execution);
        }
    }

    /// Compares the status of a request or call with its status code and with what happened below it.
    fn wrong_status(&self, family: &Family<'_>, at: usize, class: &SpanClass, code: u64) -> Option<String> {
        let span = &family.trace.spans[at];
        let label = || self.label(span);
        let is_request = matches!(class.role, Role::Request { .. });
        if span.failed {
            return (is_request && code < 500)
                .then(|| format!("{} responded {code}, but its status is an error", label()));
        }
        if code >= 500 || code >= 400 && !is_request {
            return Some(format!("{} got {code}, but its status is not an error", label()));
        }
        if !is_request || code >= 400 {
            return None;
        }
        if memmem::find(&span.encoded, b"exception.type").is_some() {
            return Some(format!("{} responded {code} in spite of an exception", label()));
        }
        let child = self.swallowed(family, at)?;
        Some(format!("{} responded {code} although {child} failed", label()))
    }

    /// Returns the label of a failed child in the same service that did not succeed later.
    fn swallowed(&self, family: &Family<'_>, at: usize) -> Option<Arc<str>> {
        if !family.has_failed_child[at] {
            return None;
        }
        let spans = &family.trace.spans;
        let children = || (0..spans.len()).filter(|child| family.layout.parents[*child] == Some(at));
        let service = self.service(&spans[at]);
        let failed = children().find(|&child| {
            let is_retried = |other: usize| {
                !spans[other].failed
                    && spans[other].class == spans[child].class
                    && spans[other].start >= spans[child].start
            };
            spans[child].failed && self.service(&spans[child]) == service && !children().any(is_retried)
        })?;
        Some(self.label(&spans[failed]))
    }

    /// Inspects how a span relates to its parent.
    fn relation(&mut self, family: &Family<'_>, at: usize, class: &SpanClass) {
        let trace = family.trace;
        let span = &trace.spans[at];
        let is_old = trace.latest.saturating_add(PARENT_GRACE) < self.now;
        if family.layout.orphans[at] && trace.dropped() == 0 && is_old {
            let subject = format!("the parent of {} is missing", self.label(span));
            self.groups.add(self.one(family, span, Kind::LostParent, subject));
        }
        let Some(parent_at) = family.layout.parents[at] else {
            return;
        };
        let parent = &trace.spans[parent_at];
        let offsets = &family.layout.offsets;
        let skew = offsets[at].saturating_sub(offsets[parent_at]);
        if skew != 0 {
            let (own, other) = (self.service(span), self.service(parent));
            let is_same_clock = family.nodes[at].times.clock == family.nodes[parent_at].times.clock;
            let subject = match skew {
                _ if is_same_clock || own == other => {
                    format!("{} begins before its parent", self.label(span))
                }
                1.. => format!("the clock of {own} is behind that of {other}"),
                _ => format!("the clock of {own} is ahead of that of {other}"),
            };
            let one = self.one(family, span, Kind::ClockSkew, subject);
            self.groups.add(Occurrence {
                total: skew.unsigned_abs(),
                max: skew.unsigned_abs(),
                ..one
            });
        }
        let parent_class = self.traces.classes.get(parent.class);
        let late = span
            .start
            .saturating_sub(parent.start.saturating_add(parent.duration));
        let is_received = matches!(class.role, Role::Task { .. } | Role::Receive(_));
        if is_received && matches!(parent_class.role, Role::Send(_)) && late >= QUEUE_DELAY {
            let subject = format!("messages of {} waited in the queue", self.label(span));
            let one = self.one(family, span, Kind::QueueDelay, subject);
            self.groups.add(Occurrence {
                total: late,
                max: late,
                ..one
            });
        }
    }

    /// Finds equal statements and calls of one operation.
    fn repetitions(&mut self, family: &Family<'_>) {
        let spans = &family.trace.spans;
        if spans.len() <= RETRIES {
            return;
        }
        let owners = self.owners(family);
        let mut equal: HashMap<(usize, InternId), Vec<usize>> = HashMap::new();
        for (at, span) in spans.iter().enumerate() {
            let class = self.traces.classes.get(span.class);
            if let Role::Database { .. } | Role::Call { .. } = class.role {
                equal.entry((owners[at], span.class)).or_default().push(at);
            }
        }
        for ((owner, class), all) in equal {
            let class = self.traces.classes.get(class);
            let owner = self.label(&spans[owner]);
            let failed = all.iter().filter(|&&at| spans[at].failed).count();
            if failed >= RETRIES {
                let subject = format!("{NUMBER} × {} in {owner}, after failures", class.name);
                self.repeated(family, Kind::RetryStorm, &all, subject);
            } else if all.len() >= MANY && !is_pool(&class.name) {
                for (statement, all) in self.by_statement(family, class, all) {
                    let subject = format!("{NUMBER} × {statement} in {owner}");
                    self.repeated(family, Kind::NPlusOne, &all, subject);
                }
            }
        }
    }

    /// Returns those of equal spans that have the same statement, if they are many.
    fn by_statement(
        &self,
        family: &Family<'_>,
        class: &SpanClass,
        all: Vec<usize>,
    ) -> Vec<(String, Vec<usize>)> {
        if !matches!(class.role, Role::Database { .. }) {
            return vec![(class.name.to_string(), all)];
        }
        let mut by_statement: HashMap<String, Vec<usize>> = HashMap::new();
        for at in all.into_iter().take(MAX_COMPARED) {
            let statement = self.statement(&family.trace.spans[at], &class.name);
            by_statement.entry(statement).or_default().push(at);
        }
        let is_control = |statement: &str| {
            let statement = statement.to_ascii_lowercase();
            CONTROL.iter().any(|control| statement.starts_with(control))
        };
        by_statement.retain(|statement, all| all.len() >= MANY && !is_control(statement));
        by_statement.into_iter().collect()
    }

    fn repeated(&mut self, family: &Family<'_>, kind: Kind, all: &[usize], subject: String) {
        let spans = || all.iter().map(|&at| &family.trace.spans[at]);
        let Some(first) = spans().next() else {
            return;
        };
        let one = self.one(family, first, kind, subject);
        self.groups.add(Occurrence {
            count: all.len() as u64,
            time: spans().map(|span| span.effective_end).max().unwrap_or(one.time),
            total: spans().map(|span| span.duration).fold(0, u64::saturating_add),
            max: spans().map(|span| span.duration).max().unwrap_or(0),
            ..one
        });
    }

    /// Returns the requests and tasks that the spans belong to, or else their outermost ancestors.
    fn owners(&self, family: &Family<'_>) -> Vec<usize> {
        let mut owners: Vec<_> = (0..family.nodes.len()).collect();
        for &at in &family.layout.order {
            if let Some(parent) = family.layout.parents[at] {
                let class = self.traces.classes.get(family.trace.spans[parent].class);
                let is_owner = matches!(class.role, Role::Request { .. } | Role::Task { .. });
                owners[at] = if is_owner { parent } else { owners[parent] };
            }
        }
        owners
    }

    /// Returns the statement of a span without values, or else `name`.
    fn statement(&self, span: &SpanEntry, name: &str) -> String {
        let attributes = decode(span).attributes;
        let mut keys = self.keys.statement.iter();
        let statement = keys.find_map(|key| text(key, &attributes));
        statement.map_or_else(|| name.to_owned(), |statement| normalize(&statement))
    }
}

fn decode(span: &SpanEntry) -> Span {
    Span::decode(&*span.encoded).unwrap_or_default()
}

/// Returns the first text of an attribute.
fn text(key: &Key, attributes: &[KeyValue]) -> Option<String> {
    let value = key.values(attributes).next()?.into_owned();
    let attribute = KeyValue {
        value: Some(value),
        ..KeyValue::default()
    };
    text_of(&attribute)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// Whether a span's name says that it takes a connection from a pool.
fn is_pool(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |text: &str| name.contains(text);
    has("pool") || has("connection") && (has("acquire") || has("checkout") || has("wait"))
}

/// Returns the HTTP status code of an encoded span without decoding it.
fn status_code(encoded: &[u8]) -> Option<u64> {
    let value_of = |key: &str| {
        let start = memmem::find(encoded, key.as_bytes())? + key.len();
        // The attribute's value (field 2) is a message of at most 127 bytes with an integer (field 3) or a string (field 1).
        match encoded.get(start..)? {
            [0x12, _, 0x18, varint @ ..] => prost::encoding::decode_varint(&mut &*varint).ok(),
            [0x12, _, 0x0a, 3, digits @ ..] => std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
            _ => None,
        }
    };
    value_of("http.response.status_code").or_else(|| value_of("http.status_code"))
}
