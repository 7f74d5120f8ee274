//! Looks for traces, newest first. It holds the lock a few milliseconds at a time, so that what comes in need not wait for
//! it, and stops when it has looked long enough; the answer says where to go on.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{common::v1::KeyValue, trace::v1::Span};
use prost::Message as _;

use super::{
    filter::{Attribute, Text},
    gated::Gated,
    ids::TraceId,
    intern::Shared,
    traces::{SpanEntry, Status, Trace, Traces},
};

/// How long a search looks altogether, and how long it holds the lock at a time.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
pub(crate) const AT_A_TIME: Duration = Duration::from_millis(5);

/// How many bytes of texts an answer may have, before they are JSON; a list that would have more goes on on another page.
pub(crate) const ANSWER_BYTES: usize = 4 << 20;

/// How many services of a trace are told.
const MAX_SERVICES: usize = 100;

/// Which traces are looked for: those with a span for which all holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceSearch {
    pub(crate) service: Option<String>,
    /// Part of the span's name or of its route.
    pub(crate) name: Option<Text>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) min_duration: Option<u64>,
    pub(crate) max_duration: Option<u64>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) text: Option<Text>,
    /// When the span began.
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
    pub(crate) before: Option<u64>,
    pub(crate) limit: usize,
}

/// How a trace went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// None of its spans failed.
    Ok,
    /// The span failed.
    Error,
}

/// A trace in a list.
#[derive(Clone, Debug)]
pub(crate) struct TraceSummary {
    pub(crate) id: TraceId,
    pub(crate) root_service: Arc<str>,
    pub(crate) root_name: Arc<str>,
    pub(crate) start: u64,
    pub(crate) duration: u64,
    pub(crate) spans: usize,
    pub(crate) errors: usize,
    pub(crate) dropped: u64,
    /// Services and how many spans each has, those that began first first.
    pub(crate) services: Vec<(Arc<str>, usize)>,
}

impl TraceSummary {
    /// How long its texts are, in bytes.
    fn len(&self) -> usize {
        let services: usize = self.services.iter().map(|(service, _)| service.len()).sum();
        self.root_service.len() + self.root_name.len() + services
    }
}

/// What was found, and where to look on: `None` at the end.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    pub(crate) entries: Vec<T>,
    pub(crate) next: Option<u64>,
}

/// Looks for traces as `search` says.
pub(crate) fn search(traces: &Gated<Traces>, search: &TraceSearch) -> Found<TraceSummary> {
    let deadline = Instant::now() + PATIENCE;
    let mut entries = Vec::new();
    let mut before = search.before.unwrap_or(u64::MAX);
    let mut bytes = 0;
    loop {
        let traces = traces.read();
        let pause = Instant::now() + AT_A_TIME;
        let mut matcher = Matcher::new(search, &traces);
        let mut done = true;
        for (number, trace) in traces.before(before) {
            if entries.len() == search.limit || bytes > ANSWER_BYTES {
                done = false;
                break;
            }
            before = number;
            if matcher.holds(trace) {
                let found = summary(&traces, trace);
                bytes += found.len();
                entries.push(found);
            }
            if Instant::now() >= pause {
                done = false;
                break;
            }
        }
        if done {
            return Found { entries, next: None };
        }
        if entries.len() == search.limit || bytes > ANSWER_BYTES || Instant::now() >= deadline {
            return Found {
                entries,
                next: Some(before),
            };
        }
    }
}

/// A trace as lists show it.
pub(crate) fn summary(traces: &Traces, trace: &Trace) -> TraceSummary {
    let (start, duration) = trace.extent();
    let mut services: HashMap<&Arc<str>, (u64, usize)> = HashMap::new();
    for span in &trace.spans {
        let (first, spans) = services
            .entry(&traces.origin(span).service)
            .or_insert((span.start, 0));
        *first = span.start.min(*first);
        *spans += 1;
    }
    let mut services: Vec<_> = services.into_iter().collect();
    services.sort_unstable_by_key(|&(service, (first, _))| (first, service));
    services.truncate(MAX_SERVICES);
    let root = trace.root();
    TraceSummary {
        id: trace.id,
        root_service: root.map_or_else(Arc::default, |root| traces.origin(root).service.clone()),
        root_name: root.map_or_else(Arc::default, |root| traces.shapes.get(root.shape).name.clone()),
        start,
        duration,
        spans: trace.spans.len(),
        errors: trace
            .spans
            .iter()
            .filter(|span| span.status == Status::Error)
            .count(),
        dropped: trace.dropped,
        services: services
            .into_iter()
            .map(|(service, (_, spans))| (service.clone(), spans))
            .collect(),
    }
}

/// Tells whether spans are looked for; what holds for a shape or an origin is worked out once.
struct Matcher<'a> {
    search: &'a TraceSearch,
    traces: &'a Traces,
    /// By shape: whether service and name are as wanted, once known.
    shapes: Vec<Option<bool>>,
    resources: HashMap<Shared, Vec<KeyValue>>,
}

impl<'a> Matcher<'a> {
    fn new(search: &'a TraceSearch, traces: &'a Traces) -> Self {
        Self {
            search,
            traces,
            shapes: vec![None; traces.shapes.slots()],
            resources: HashMap::new(),
        }
    }

    fn holds(&mut self, trace: &Trace) -> bool {
        let failed = |span: &SpanEntry| span.status == Status::Error;
        if self.search.outcome == Some(Outcome::Ok) && trace.spans.iter().any(failed) {
            return false;
        }
        trace
            .spans
            .iter()
            .any(|span| self.entry_holds(span) && self.encoding_holds(span))
    }

    /// What the index tells.
    fn entry_holds(&mut self, span: &SpanEntry) -> bool {
        let Self {
            search,
            traces,
            shapes,
            ..
        } = self;
        let shape = &mut shapes[span.shape.index()];
        (search.outcome != Some(Outcome::Error) || span.status == Status::Error)
            && search.min_duration.is_none_or(|least| span.duration >= least)
            && search.max_duration.is_none_or(|most| span.duration <= most)
            && search.from.is_none_or(|from| span.start >= from)
            && search.to.is_none_or(|to| span.start <= to)
            && *shape.get_or_insert_with(|| shape_holds(search, traces, span.shape))
    }

    /// What only the span itself tells.
    fn encoding_holds(&mut self, span: &SpanEntry) -> bool {
        let TraceSearch { attributes, text, .. } = self.search;
        if text.as_ref().is_some_and(|text| !text.is_in(&span.encoded)) {
            return false;
        }
        let elsewhere = |wanted: &&Attribute| !wanted.may_be_in(&span.encoded);
        if attributes
            .iter()
            .any(|wanted| elsewhere(&wanted) && !self.is_of_resource(wanted, span))
        {
            return false;
        }
        if text.is_none() && attributes.is_empty() {
            return true;
        }
        let Ok(decoded) = Span::decode(&*span.encoded) else {
            return false;
        };
        text.as_ref().is_none_or(|text| is_in_span(text, &decoded))
            && attributes
                .iter()
                .all(|wanted| wanted.is_in(&decoded.attributes) || self.is_of_resource(wanted, span))
    }

    fn is_of_resource(&mut self, wanted: &Attribute, span: &SpanEntry) -> bool {
        let origin = self.traces.shapes.get(span.shape).origin;
        let resource = self
            .resources
            .entry(origin)
            .or_insert_with(|| self.traces.origins.get(origin).resource());
        wanted.is_in(resource)
    }
}

fn shape_holds(search: &TraceSearch, traces: &Traces, shape: Shared) -> bool {
    let shape = traces.shapes.get(shape);
    let service = &*traces.origins.get(shape.origin).service;
    search.service.as_deref().is_none_or(|wanted| wanted == service)
        && search
            .name
            .as_ref()
            .is_none_or(|part| part.is_in(shape.name.as_bytes()) || part.is_in(shape.route().as_bytes()))
}

/// Whether `text` is in the span's name, message, attributes or events.
fn is_in_span(text: &Text, span: &Span) -> bool {
    text.is_in(span.name.as_bytes())
        || span
            .status
            .as_ref()
            .is_some_and(|status| text.is_in(status.message.as_bytes()))
        || text.is_in_attributes(&span.attributes)
        || span
            .events
            .iter()
            .any(|event| text.is_in(event.name.as_bytes()) || text.is_in_attributes(&event.attributes))
}
