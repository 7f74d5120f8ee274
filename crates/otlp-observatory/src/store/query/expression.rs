//! Expressions of the query language.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::store::{
    condition::{Attribute, Condition, Operator},
    filter::Text,
    ids::{SpanId, TraceId},
};
#[cfg(feature = "keep")]
use crate::store::{grams, hint::Hint};

/// Entries that a query is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    /// Traces; terms are evaluated for their spans.
    Spans,
    /// Log records.
    Records,
}

/// Parsed query.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(super) expression: Expression,
    /// Number of negations, each of which has an index.
    pub(super) negations: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Expression {
    All(Vec<Self>),
    Any(Vec<Self>),
    /// No span of the trace matches; for log records, the record does not match.
    Not {
        index: usize,
        inner: Box<Self>,
    },
    Term(Term),
}

#[derive(Clone, Debug)]
pub(super) enum Term {
    /// Text in any part of the entry.
    Text(Text),
    Trace {
        id: TraceId,
        equal: bool,
    },
    Span {
        id: SpanId,
        equal: bool,
    },
    Service(Condition),
    Scope(Condition),
    /// Name of a span, or the method and route of a request.
    Name(Condition),
    /// Name of an event of a span, or of a record.
    Event(Condition),
    Body(Condition),
    Kind {
        kind: SpanKind,
        equal: bool,
    },
    /// Status of a span.
    Status {
        status: Status,
        equal: bool,
    },
    /// Duration of a span.
    Duration(Comparison),
    /// Duration of a trace.
    TraceDuration(Comparison),
    /// Number of spans in the trace.
    Spans(Comparison),
    /// Number of failed spans in the trace.
    Errors(Comparison),
    /// Number of services in the trace.
    Services(Comparison),
    /// Severity number of a record.
    Level(Level),
    Attribute(Attribute),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Status {
    Unset,
    Error,
}

/// Comparison with a count or with a number of nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub(super) operator: Operator,
    pub(super) value: u64,
}

/// Comparison with a level, which is the range of severity numbers from `least` to `least + 3`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) operator: Operator,
    pub(super) least: u8,
}

impl Query {
    /// Returns the trace that the query names. If it is stored, no other trace needs to be searched.
    pub(crate) fn trace(&self) -> Option<TraceId> {
        self.expression.trace()
    }

    /// Adds the necessary conditions of the query.
    #[cfg(feature = "keep")]
    pub(crate) fn hint(&self, hint: &mut Hint) {
        self.expression.hint(hint);
    }

    /// Matches entries with `text`, and the trace with `id` or its records.
    pub(crate) fn text_or_trace(text: &str, id: TraceId) -> Self {
        Self {
            expression: Expression::text_or_trace(text, id),
            negations: 0,
        }
    }

    /// Matches the entries that match both queries.
    pub(crate) fn and(self, mut other: Self) -> Self {
        other.expression.shift_negations(self.negations);
        Self {
            negations: self.negations + other.negations,
            expression: Expression::all(vec![self.expression, other.expression]),
        }
    }
}

impl Expression {
    pub(super) fn text_or_trace(text: &str, id: TraceId) -> Self {
        Self::Any(vec![
            Self::Term(Term::Trace { id, equal: true }),
            Self::Term(Term::Text(Text::new(text))),
        ])
    }

    fn trace(&self) -> Option<TraceId> {
        match self {
            Self::Term(Term::Trace { id, equal: true }) => Some(*id),
            Self::All(parts) => parts.iter().find_map(Self::trace),
            // The digits of an id are a text, too.
            Self::Any(parts) => match &parts[..] {
                [trace, Self::Term(Term::Text(text))] => trace.trace().filter(|id| text.is_id(*id)),
                _ => None,
            },
            Self::Not { .. } | Self::Term(_) => None,
        }
    }

    #[cfg(feature = "keep")]
    fn hint(&self, hint: &mut Hint) {
        match self {
            Self::All(parts) => parts.iter().for_each(|part| part.hint(hint)),
            Self::Term(term) => term.hint(hint),
            Self::Any(_) | Self::Not { .. } => {}
        }
    }

    /// Creates an expression that matches if all of `parts` match; the parts that are fast to evaluate come first.
    pub(super) fn all(parts: Vec<Self>) -> Self {
        Self::sorted(parts, Self::All)
    }

    /// Creates an expression that matches if any of `parts` matches.
    pub(super) fn any(parts: Vec<Self>) -> Self {
        Self::sorted(parts, Self::Any)
    }

    fn sorted(mut parts: Vec<Self>, combined: fn(Vec<Self>) -> Self) -> Self {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        parts.sort_by_key(Self::cost);
        combined(parts)
    }

    /// Returns 0 for expressions that need only the index, 1 for those that may decode an entry, and 2 for those that may
    /// decode other entries.
    fn cost(&self) -> u8 {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::cost).max().unwrap_or(0),
            Self::Not { .. } => 2,
            Self::Term(
                Term::Text(_) | Term::Event(_) | Term::Body(_) | Term::Status { .. } | Term::Attribute(_),
            ) => 1,
            Self::Term(_) => 0,
        }
    }

    fn shift_negations(&mut self, by: usize) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter_mut().for_each(|part| part.shift_negations(by)),
            Self::Not { index, inner } => {
                *index += by;
                inner.shift_negations(by);
            }
            Self::Term(_) => {}
        }
    }
}

#[cfg(feature = "keep")]
impl Term {
    fn hint(&self, hint: &mut Hint) {
        let mut add = |gram| hint.grams.push(gram);
        match self {
            Self::Trace { id, equal: true } => hint.trace = Some(*id),
            Self::Text(text) => text.grams(add),
            Self::Service(condition) | Self::Scope(condition) => condition.grams(false, add),
            Self::Event(condition) | Self::Body(condition) => condition.grams(true, add),
            // A name may consist of a method and a route.
            Self::Name(Condition::Equal(name)) => Text::new(name).grams_of_words(add),
            Self::Name(Condition::Contains(text)) => text.grams_of_words(add),
            Self::Attribute(attribute) => attribute.grams(add),
            Self::Level(Level {
                operator: Operator::Equal | Operator::AtLeast | Operator::Greater,
                least,
            }) => {
                grams::of_severity(*least, &mut add);
            }
            Self::Status {
                status: Status::Error,
                equal: true,
            } => hint.failed = true,
            Self::Duration(Comparison {
                operator: Operator::Equal | Operator::AtLeast | Operator::Greater,
                value,
            }) => {
                hint.min_duration = hint.min_duration.max(*value);
            }
            _ => {}
        }
    }
}

impl Comparison {
    pub(super) fn accepts(self, value: u64) -> bool {
        self.operator.accepts(value.cmp(&self.value))
    }
}

impl Level {
    pub(super) fn accepts(self, severity: u8) -> bool {
        if severity == 0 {
            // A record without a severity has no level.
            return false;
        }
        let order = match severity {
            lower if lower < self.least => std::cmp::Ordering::Less,
            higher if higher > self.least + 3 => std::cmp::Ordering::Greater,
            _ => std::cmp::Ordering::Equal,
        };
        self.operator.accepts(order)
    }
}
