//! Completions of queries: keys and values seen in the newest entries.

use std::{cell::RefCell, collections::HashMap};

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::Span,
};
use prost::Message as _;
use serde::Serialize;

use crate::store::{
    fair_lock::FairLock, latency::most_frequent, logs::Logs, search::SearchPage, source::Source,
    traces::Traces,
};

/// Maximum number of spans or records that are inspected.
const MAX_ENTRIES: usize = 5_000;

/// Maximum number of different keys or values that are counted.
const MAX_COUNTED: usize = 2_000;

/// Maximum number of completions.
const MAX_COMPLETIONS: usize = 100;

/// Maximum length of a completion in bytes.
const MAX_BYTES: usize = 200;

/// Key or value with the number of entries that have it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Counted {
    pub(crate) text: String,
    count: usize,
}

/// Completions of a query, the most frequent first.
pub(crate) type Completions = Vec<Counted>;

/// Counts the keys of entries, or the values of one key.
struct Counter<'a> {
    key: Option<&'a str>,
    counts: HashMap<String, usize>,
    entries: usize,
}

impl Counter<'_> {
    fn count(&mut self, text: &str) {
        if let Some(count) = self.counts.get_mut(text) {
            *count += 1;
        } else if self.counts.len() < MAX_COUNTED && (1..=MAX_BYTES).contains(&text.len()) {
            self.counts.insert(text.to_owned(), 1);
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        if self.key == Some(name) {
            self.count(value);
        }
    }

    fn attributes(&mut self, attributes: &[KeyValue]) {
        for attribute in attributes {
            match self.key {
                None => self.count(&attribute.key),
                Some(key) if key == attribute.key => {
                    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
                        Some(Value::StringValue(text)) => self.count(text),
                        Some(Value::BoolValue(value)) => self.count(&value.to_string()),
                        Some(Value::IntValue(value)) => self.count(&value.to_string()),
                        Some(Value::DoubleValue(value)) => self.count(&value.to_string()),
                        _ => {}
                    }
                }
                Some(_) => {}
            }
        }
    }

    fn source(&mut self, source: &Source) {
        self.field("service", &source.service);
        self.field("scope", &source.scope);
        self.attributes(&source.resource());
    }

    /// Whether another entry may be inspected.
    fn take(&mut self) -> bool {
        self.entries += 1;
        !self.is_done()
    }

    fn is_done(&self) -> bool {
        self.entries > MAX_ENTRIES
    }
}

/// Returns the keys of the newest spans, or the values of `key`.
pub(in crate::store) fn complete_spans(traces: &FairLock<Traces>, key: Option<&str>) -> Completions {
    let counter = counter(key);
    SearchPage::<()>::collect(traces, None, 1, |traces, before, visit| {
        let mut counter = counter.borrow_mut();
        let at_end = traces.before(before).all(|(number, trace)| {
            trace.spans.iter().all(|entry| {
                let is_wanted = counter.take();
                if is_wanted {
                    let span = Span::decode(&*entry.encoded).unwrap_or_default();
                    counter.source(traces.source(entry));
                    counter.field("name", &span.name);
                    counter.attributes(&span.attributes);
                    for event in &span.events {
                        counter.field("event", &event.name);
                        counter.attributes(&event.attributes);
                    }
                }
                is_wanted
            }) && visit(number, None)
        });
        at_end || counter.is_done()
    });
    completions(counter)
}

/// Returns the keys of the newest log records, or the values of `key`.
pub(in crate::store) fn complete_records(logs: &FairLock<Logs>, key: Option<&str>) -> Completions {
    let counter = counter(key);
    SearchPage::<()>::collect(logs, None, 1, |logs, before, visit| {
        let mut counter = counter.borrow_mut();
        let at_end = logs.before(None, before).all(|(sequence, entry)| {
            let is_wanted = counter.take();
            if is_wanted {
                let record = LogRecord::decode(&*entry.encoded).unwrap_or_default();
                counter.source(logs.sources.get(entry.source));
                counter.field("event", &record.event_name);
                counter.attributes(&record.attributes);
            }
            is_wanted && visit(sequence, None)
        });
        at_end || counter.is_done()
    });
    completions(counter)
}

fn counter(key: Option<&str>) -> RefCell<Counter<'_>> {
    RefCell::new(Counter {
        key,
        counts: HashMap::new(),
        entries: 0,
    })
}

fn completions(counter: RefCell<Counter<'_>>) -> Completions {
    let counts = counter.into_inner().counts;
    most_frequent(
        counts,
        MAX_COMPLETIONS,
        |count| *count,
        |text, count| Counted { text, count },
    )
}
