//! Evaluates queries for the spans of traces.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;

use super::expression::{Expression, Query, Status, Term};
use crate::store::{
    condition::Attribute,
    intern::InternId,
    scale,
    span_class::Role,
    traces::{SpanEntry, Trace, Traces},
};

/// Evaluates a query, with caches by class and source.
pub(in crate::store) struct SpanMatcher<'a> {
    query: &'a Query,
    traces: &'a Traces,
    /// Routes, indexed by class.
    routes: Vec<OnceCell<Arc<str>>>,
    resources: HashMap<InternId, Vec<KeyValue>>,
    /// Results of the negations for the current trace.
    negations: Vec<Option<bool>>,
}

/// Values of a trace, computed when they are needed.
#[derive(Default)]
struct Facts {
    duration: OnceCell<u64>,
    errors: OnceCell<u64>,
    services: OnceCell<u64>,
}

/// Span of a trace, decoded when it is needed.
struct Candidate<'a> {
    trace: &'a Trace,
    facts: &'a Facts,
    entry: &'a SpanEntry,
    decoded: OnceCell<Span>,
}

impl Candidate<'_> {
    fn span(&self) -> &Span {
        self.decoded
            .get_or_init(|| Span::decode(&*self.entry.encoded).unwrap_or_default())
    }
}

impl<'a> SpanMatcher<'a> {
    pub(in crate::store) fn new(query: &'a Query, traces: &'a Traces) -> Self {
        Self {
            query,
            traces,
            routes: vec![OnceCell::new(); traces.classes.slots()],
            resources: HashMap::new(),
            negations: Vec::new(),
        }
    }

    /// Returns whether one of the spans that `is_wanted` accepts matches the query.
    pub(in crate::store) fn any(
        &mut self,
        trace: &'a Trace,
        mut is_wanted: impl FnMut(&SpanEntry) -> bool,
    ) -> bool {
        let facts = Facts::default();
        let query = self.query;
        self.negations = vec![None; query.negations];
        trace.spans.iter().any(|entry| {
            is_wanted(entry) && self.matches(&query.expression, &candidate(trace, &facts, entry))
        })
    }

    fn matches(&mut self, expression: &Expression, span: &Candidate<'_>) -> bool {
        match expression {
            Expression::All(parts) => parts.iter().all(|part| self.matches(part, span)),
            Expression::Any(parts) => parts.iter().any(|part| self.matches(part, span)),
            Expression::Not { index, inner } => {
                if let Some(known) = self.negations[*index] {
                    return known;
                }
                let mut spans = span.trace.spans.iter();
                let is_none =
                    !spans.any(|entry| self.matches(inner, &candidate(span.trace, span.facts, entry)));
                self.negations[*index] = Some(is_none);
                is_none
            }
            Expression::Term(term) => self.term(term, span),
        }
    }

    fn term(&mut self, term: &Term, span: &Candidate<'_>) -> bool {
        let Candidate {
            trace, facts, entry, ..
        } = *span;
        let traces = self.traces;
        match term {
            Term::Text(text) => text.is_in(&entry.encoded) && text.is_in_span(span.span()),
            Term::Trace { id, equal } => (trace.id == *id) == *equal,
            Term::Span { id, equal } => (entry.id == *id) == *equal,
            Term::Service(condition) => condition.accepts_text(&traces.source(entry).service),
            Term::Scope(condition) => condition.accepts_text(&traces.source(entry).scope),
            Term::Name(condition) => {
                let class = traces.classes.get(entry.class);
                let route = self.routes[entry.class.index()].get_or_init(|| class.route());
                let (by_name, by_route) =
                    (condition.accepts_text(&class.name), condition.accepts_text(route));
                if condition.is_negative() {
                    by_name && by_route
                } else {
                    by_name || by_route
                }
            }
            Term::Event(condition) => {
                let names = span.span().events.iter().map(|event| &*event.name);
                condition.accepts_texts(names)
            }
            Term::Kind { kind, equal } => (kind_of(traces, span) == *kind) == *equal,
            Term::Status { status, equal } => {
                let is_status = match status {
                    Status::Error => entry.failed,
                    Status::Unset => span.span().status.as_ref().is_none_or(|status| status.code == 0),
                };
                is_status == *equal
            }
            Term::Duration(comparison) => comparison.accepts(entry.duration),
            Term::TraceDuration(comparison) => {
                comparison.accepts(*facts.duration.get_or_init(|| scale::of_trace(traces, trace).1))
            }
            Term::Spans(comparison) => comparison.accepts(trace.spans.len() as u64),
            Term::Errors(comparison) => {
                let count = || trace.spans.iter().filter(|span| span.failed).count() as u64;
                comparison.accepts(*facts.errors.get_or_init(count))
            }
            Term::Services(comparison) => {
                let count = || {
                    let services = trace.spans.iter().map(|span| &traces.source(span).service);
                    services.collect::<HashSet<_>>().len() as u64
                };
                comparison.accepts(*facts.services.get_or_init(count))
            }
            Term::Attribute(wanted) => self.has(wanted, span),
            Term::Level(_) | Term::Body(_) => false,
        }
    }

    /// Whether the span, one of its events or its resource has the attribute.
    fn has(&mut self, wanted: &Attribute, span: &Candidate<'_>) -> bool {
        let source = self.traces.classes.get(span.entry.class).source;
        let resource = self.resources.entry(source);
        let resource = resource.or_insert_with(|| self.traces.sources.get(source).resource());
        wanted.is_in(resource)
            || wanted.may_be_in(&span.entry.encoded) && {
                let span = span.span();
                wanted.is_in(&span.attributes)
                    || span.events.iter().any(|event| wanted.is_in(&event.attributes))
            }
    }
}

fn candidate<'a>(trace: &'a Trace, facts: &'a Facts, entry: &'a SpanEntry) -> Candidate<'a> {
    Candidate {
        trace,
        facts,
        entry,
        decoded: OnceCell::new(),
    }
}

/// Returns the kind of a span; only those without a role need to be decoded.
fn kind_of(traces: &Traces, span: &Candidate<'_>) -> SpanKind {
    match traces.classes.get(span.entry.class).role {
        Role::Request { .. } => SpanKind::Server,
        Role::Task { .. } | Role::Receive(_) => SpanKind::Consumer,
        Role::Send(_) => SpanKind::Producer,
        Role::Database { .. } | Role::Call { .. } => SpanKind::Client,
        Role::Internal => span.span().kind(),
    }
}
