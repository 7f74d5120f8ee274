//! Searches traces in the order of a column. Every stored trace is compared, as far as the time limit allows, and the
//! first ones of the order are kept.

use std::{cell::RefCell, cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{
    fair_lock::FairLock,
    ids::TraceId,
    logs::Logs,
    scale,
    search::{Matcher, SearchPage, TraceSearch, TraceSummary, summary},
    traces::{Trace, Traces},
};

/// Order of traces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sort {
    pub(crate) column: Column,
    pub(crate) is_descending: bool,
}

/// Column of the list of traces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Column {
    Start,
    Duration,
    Spans,
    Errors,
    Logs,
    Services,
    /// Name of the root span.
    Name,
    /// Service of the root span.
    Service,
}

impl Column {
    const NAMES: [(&'static str, Self); 8] = [
        ("start", Self::Start),
        ("duration", Self::Duration),
        ("spans", Self::Spans),
        ("errors", Self::Errors),
        ("logs", Self::Logs),
        ("services", Self::Services),
        ("name", Self::Name),
        ("service", Self::Service),
    ];
}

impl Sort {
    /// Parses the name of a column; a minus sign before it means descending order.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix('-');
        let mut names = Column::NAMES.into_iter();
        let (_, column) = names.find(|(known, _)| *known == name.unwrap_or(text))?;
        let is_descending = name.is_some();
        Some(Self {
            column,
            is_descending,
        })
    }
}

/// Position in a sorted list: after the trace with this value and id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Position {
    value: Value,
    trace: TraceId,
    is_descending: bool,
}

/// Value of a column.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Value {
    Number(u64),
    Text(Arc<str>),
}

impl Position {
    /// Parses the text that `to_text` returned.
    pub(crate) fn parse(text: &str, sort: Sort) -> Option<Self> {
        let (value, trace) = text.rsplit_once('.')?;
        let value = match sort.column {
            Column::Name | Column::Service => Value::Text(value.into()),
            _ => Value::Number(value.parse().ok()?),
        };
        Some(Self {
            value,
            trace: TraceId::from_hex(trace)?,
            is_descending: sort.is_descending,
        })
    }

    pub(crate) fn to_text(&self) -> String {
        match &self.value {
            Value::Number(value) => format!("{value}.{}", self.trace),
            Value::Text(value) => format!("{value}.{}", self.trace),
        }
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_value = self.value.cmp(&other.value);
        let by_value = if self.is_descending {
            by_value.reverse()
        } else {
            by_value
        };
        by_value.then_with(|| self.trace.cmp(&other.trace))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Page of a sorted list.
#[derive(Clone, Debug)]
pub(crate) struct SortedPage {
    pub(crate) entries: Vec<TraceSummary>,
    /// Position of the next page; `None` at the end.
    pub(crate) next: Option<Position>,
    /// Whether every stored trace was compared.
    pub(crate) is_complete: bool,
}

/// First traces of the order.
#[derive(Debug, Default)]
struct First {
    entries: BTreeMap<Position, TraceSummary>,
    has_more: bool,
}

/// Returns the traces that match `search`, in the order of `sort`, from `after`.
pub(super) fn search(
    traces: &FairLock<Traces>,
    logs: &FairLock<Logs>,
    search: &TraceSearch,
    sort: Sort,
    after: Option<&Position>,
) -> SortedPage {
    let first = RefCell::new(First::default());
    let scanned = SearchPage::<()>::collect(traces, None, 1, |traces, before, visit| {
        let mut first = first.borrow_mut();
        let mut matcher = Matcher::new(search, traces);
        let logs = (sort.column == Column::Logs).then(|| logs.read());
        traces.before(before).all(|(number, trace)| {
            let position = Position {
                value: value(traces, logs.as_deref(), trace, sort.column),
                trace: trace.id,
                is_descending: sort.is_descending,
            };
            if after.is_none_or(|after| position > *after)
                && first.may_take(&position, search.limit)
                && matcher.matches(trace)
            {
                first.entries.insert(position, summary(traces, trace));
                if first.entries.len() > search.limit {
                    first.entries.pop_last();
                    first.has_more = true;
                }
            }
            visit(number, None)
        })
    });
    let First { entries, has_more } = first.into_inner();
    SortedPage {
        next: entries
            .last_key_value()
            .filter(|_| has_more)
            .map(|(last, _)| last.clone()),
        entries: entries.into_values().collect(),
        is_complete: scanned.next.is_none(),
    }
}

impl First {
    /// Whether a trace at `position` belongs to the first ones, as far as they are known.
    fn may_take(&mut self, position: &Position, limit: usize) -> bool {
        let is_first = self.entries.len() < limit
            || self
                .entries
                .last_key_value()
                .is_some_and(|(last, _)| position < last);
        // A trace that is left out may not match, in which case the next page is empty.
        self.has_more |= !is_first;
        is_first
    }
}

fn value(traces: &Traces, logs: Option<&Logs>, trace: &Trace, column: Column) -> Value {
    let root = || trace.root();
    Value::Number(match column {
        Column::Start => scale::of_trace(traces, trace).0,
        Column::Duration => scale::of_trace(traces, trace).1,
        Column::Spans => trace.spans.len() as u64,
        Column::Errors => trace.spans.iter().filter(|span| span.failed).count() as u64,
        Column::Logs => logs.map_or(0, |logs| logs.count_in_trace(trace.id)),
        Column::Services => {
            let mut services: Vec<_> = trace
                .spans
                .iter()
                .map(|span| &traces.source(span).service)
                .collect();
            services.sort_unstable();
            services.dedup();
            services.len() as u64
        }
        Column::Name => {
            let name = root().map(|root| traces.classes.get(root.class).name.clone());
            return Value::Text(name.unwrap_or_default());
        }
        Column::Service => {
            let service = root().map(|root| traces.source(root).service.clone());
            return Value::Text(service.unwrap_or_default());
        }
    })
}
