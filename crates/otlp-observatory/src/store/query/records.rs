//! Evaluates queries for log records.

use std::cell::OnceCell;

use opentelemetry_proto::tonic::{common::v1::KeyValue, logs::v1::LogRecord};
use prost::Message as _;

use super::expression::{Expression, Query, Term};
use crate::store::{ids::SpanId, logs::Entry, source::Source};

/// Log record, decoded when it is needed.
pub(in crate::store) struct RecordMatcher<'a> {
    entry: &'a Entry,
    source: &'a Source,
    resource: &'a [KeyValue],
    decoded: OnceCell<LogRecord>,
}

impl<'a> RecordMatcher<'a> {
    pub(in crate::store) fn new(entry: &'a Entry, source: &'a Source, resource: &'a [KeyValue]) -> Self {
        Self {
            entry,
            source,
            resource,
            decoded: OnceCell::new(),
        }
    }

    pub(in crate::store) fn matches(&self, query: &Query) -> bool {
        self.is_match(&query.expression)
    }

    fn record(&self) -> &LogRecord {
        self.decoded
            .get_or_init(|| LogRecord::decode(&*self.entry.encoded).unwrap_or_default())
    }

    fn is_match(&self, expression: &Expression) -> bool {
        match expression {
            Expression::All(parts) => parts.iter().all(|part| self.is_match(part)),
            Expression::Any(parts) => parts.iter().any(|part| self.is_match(part)),
            Expression::Not { inner, .. } => !self.is_match(inner),
            Expression::Term(term) => self.term(term),
        }
    }

    fn term(&self, term: &Term) -> bool {
        match term {
            Term::Text(text) => text.is_in(&self.entry.encoded) && text.is_in_record(self.record()),
            Term::Trace { id, equal } => (self.entry.trace == Some(*id)) == *equal,
            Term::Span { id, equal } => (SpanId::from_bytes(&self.record().span_id) == Some(*id)) == *equal,
            Term::Service(condition) => condition.accepts_text(&self.source.service),
            Term::Scope(condition) => condition.accepts_text(&self.source.scope),
            Term::Event(condition) => {
                let name = Some(&*self.record().event_name).filter(|name| !name.is_empty());
                condition.accepts_texts(name)
            }
            Term::Body(condition) => condition.accepts(&self.record().body),
            Term::Level(level) => level.accepts(self.entry.severity),
            Term::Attribute(wanted) => {
                wanted.is_in(self.resource)
                    || wanted.may_be_in(&self.entry.encoded) && wanted.is_in(&self.record().attributes)
            }
            Term::Name(_)
            | Term::Kind { .. }
            | Term::Status { .. }
            | Term::Duration(_)
            | Term::TraceDuration(_)
            | Term::Spans(_)
            | Term::Errors(_)
            | Term::Services(_) => false,
        }
    }
}
