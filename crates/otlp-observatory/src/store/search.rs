//! Searches traces, newest first.
//!
//! A search releases the lock every few milliseconds so that inserts proceed, and stops at a time limit; its
//! result contains the position at which to continue.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{common::v1::KeyValue, trace::v1::Span};
use prost::Message as _;
use serde::Serialize;

use super::{
    condition::Attribute,
    fair_lock::FairLock,
    filter::Text,
    ids::{TraceId, UnixNano},
    intern::InternId,
    position::TimePosition,
    query::{Query, SpanMatcher},
    scale,
    traces::{SpanEntry, Trace, Traces},
};
#[cfg(feature = "keep")]
use super::{grams, hint::Hint};

/// Maximum duration of a search.
const MAX_SEARCH_TIME: Duration = Duration::from_millis(100);

/// Maximum time for which a search holds the lock without releasing it.
const MAX_LOCK_TIME: Duration = Duration::from_millis(5);

/// Maximum size of the strings on a page of results before JSON encoding, in bytes. Further results are on
/// the next page.
const MAX_RESULT_BYTES: usize = 4 << 20;

/// Maximum number of instances of a service in a trace summary.
const MAX_INSTANCES: usize = 10;

/// Maximum number of services in a trace summary.
const MAX_SERVICES: usize = 100;

/// Filters for traces; at least one span of a trace must match all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceSearch {
    pub(crate) service: Option<String>,
    /// Text in the span's name or route.
    pub(crate) name: Option<Text>,
    pub(crate) status: Option<StatusFilter>,
    pub(crate) min_duration: Option<u64>,
    pub(crate) max_duration: Option<u64>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) text: Option<Text>,
    pub(crate) query: Option<Query>,
    /// Lower bound of the span's start.
    pub(crate) from: Option<u64>,
    /// Upper bound of the span's start.
    pub(crate) to: Option<u64>,
    /// Upper bound of the trace's position, exclusive.
    pub(crate) before: Option<TimePosition>,
    /// Lower bound of the time of the trace's position, exclusive.
    pub(crate) above: Option<u64>,
    pub(crate) limit: usize,
}

#[cfg(feature = "keep")]
impl TraceSearch {
    /// Returns the necessary conditions of the search.
    pub(crate) fn hint(&self) -> Hint {
        let mut hint = Hint {
            failed: self.status == Some(StatusFilter::Error),
            min_duration: self.min_duration.unwrap_or(0),
            ..Hint::default()
        };
        let mut add = |gram| hint.grams.push(gram);
        if let Some(service) = &self.service {
            grams::of_whole(service.as_bytes(), &mut add);
        }
        if let Some(name) = &self.name {
            name.grams_of_words(&mut add);
        }
        if let Some(text) = &self.text {
            text.grams(&mut add);
        }
        for attribute in &self.attributes {
            attribute.grams(&mut add);
        }
        if let Some(query) = &self.query {
            query.hint(&mut hint);
            hint.trace = query.trace();
        }
        hint
    }
}

/// Filter by span status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StatusFilter {
    /// Matches spans of traces in which no span has an error status.
    Ok,
    /// Matches spans with an error status.
    Error,
}

/// Summary of a trace for lists.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TraceSummary {
    pub(crate) trace_id: TraceId,
    pub(crate) root: TraceRoot,
    pub(crate) start_unix_nano: UnixNano,
    pub(crate) duration_ns: u64,
    spans: usize,
    errors: usize,
    /// Number of log records, set by the store.
    pub(crate) logs: u64,
    /// Services in order of their first span, each with its number of spans.
    services: Vec<ServiceSpans>,
    /// Number of spans that are not kept because the trace uses too much memory.
    #[serde(rename = "dropped_spans")]
    pub(crate) dropped: u64,
}

/// Service and name of the root span.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct TraceRoot {
    service: Arc<str>,
    pub(crate) name: Arc<str>,
}

#[derive(Clone, Debug, Serialize)]
struct ServiceSpans {
    service: Arc<str>,
    spans: usize,
    /// Ids of the instances, of services that have several.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    instances: BTreeSet<Arc<str>>,
}

impl TraceSummary {
    /// Removes the instances of services other than `several`.
    pub(crate) fn retain_instances(&mut self, several: &HashSet<Arc<str>>) {
        for service in &mut self.services {
            if !several.contains(&service.service) {
                service.instances.clear();
            }
        }
    }

    /// Returns the size of the strings, in bytes.
    fn len(&self) -> usize {
        let of_service = |spans: &ServiceSpans| {
            spans.service.len()
                + spans
                    .instances
                    .iter()
                    .map(|instance| instance.len())
                    .sum::<usize>()
        };
        let services: usize = self.services.iter().map(of_service).sum();
        self.root.service.len() + self.root.name.len() + services
    }
}

/// Visitor of [`SearchPage::collect`].
type Visitor<'a, T> = &'a mut dyn FnMut(TimePosition, Option<(usize, T)>) -> bool;

/// Page of search results.
#[derive(Clone, Debug)]
pub(crate) struct SearchPage<T> {
    pub(crate) entries: Vec<T>,
    /// Value of `before` for the next page; `None` at the end.
    pub(crate) next: Option<TimePosition>,
}

impl<T> SearchPage<T> {
    /// Collects at most `limit` entries of `content`, newest first.
    ///
    /// `scan` visits the entries below the position in descending order, as long as the visitor returns true, and returns
    /// whether it reached the end. The visitor takes the position of each entry and, if the entry matches, the size of its
    /// strings and a copy.
    pub(crate) fn collect<C>(
        content: &FairLock<C>,
        before: Option<TimePosition>,
        limit: usize,
        mut scan: impl FnMut(&C, TimePosition, Visitor<'_, T>) -> bool,
    ) -> Self {
        let deadline = Instant::now() + MAX_SEARCH_TIME;
        let mut entries = Vec::new();
        let mut before = before.unwrap_or(TimePosition::END);
        let mut bytes = 0;
        loop {
            let content = content.read();
            let lock_deadline = Instant::now() + MAX_LOCK_TIME;
            let mut is_full = false;
            let at_end = scan(&content, before, &mut |position, found| {
                is_full = entries.len() == limit || bytes > MAX_RESULT_BYTES;
                if is_full {
                    return false;
                }
                before = position;
                if let Some((size, entry)) = found {
                    bytes += size;
                    entries.push(entry);
                }
                Instant::now() < lock_deadline
            });
            if at_end || is_full || Instant::now() >= deadline {
                let next = (!at_end).then_some(before);
                return Self { entries, next };
            }
        }
    }
}

/// Returns the traces that match `search`, newest first.
pub(crate) fn search(traces: &FairLock<Traces>, search: &TraceSearch) -> SearchPage<TraceSummary> {
    // With an archive, only traces above a time are wanted from memory; it has the others.
    let whole = search.query.as_ref().filter(|_| search.above.is_none());
    if let Some(id) = whole.and_then(Query::trace) {
        let traces = traces.read();
        if let Some(trace) = traces.get(id) {
            let is_found = Matcher::new(search, &traces).matches(trace);
            let entries = is_found.then(|| summary(&traces, trace)).into_iter().collect();
            return SearchPage { entries, next: None };
        }
    }
    SearchPage::collect(traces, search.before, search.limit, |traces, before, visit| {
        let mut matcher = Matcher::new(search, traces);
        let above = |position: &TimePosition| search.above.is_none_or(|above| position.time > above);
        let mut found = traces.before(before).take_while(|(position, _)| above(position));
        found.all(|(position, trace)| {
            let found = matcher.matches(trace).then(|| summary(traces, trace));
            visit(position, found.map(|summary| (summary.len(), summary)))
        })
    })
}

/// Returns the summary of a trace.
pub(crate) fn summary(traces: &Traces, trace: &Trace) -> TraceSummary {
    let (start, duration) = scale::of_trace(traces, trace);
    let mut services: HashMap<&Arc<str>, (u64, ServiceSpans)> = HashMap::new();
    for span in &trace.spans {
        let source = traces.source(span);
        let (first, service) = services.entry(&source.service).or_insert_with(|| {
            let service = ServiceSpans {
                service: source.service.clone(),
                spans: 0,
                instances: BTreeSet::new(),
            };
            (span.start, service)
        });
        *first = span.start.min(*first);
        service.spans += 1;
        if !source.instance.is_empty()
            && service.instances.len() < MAX_INSTANCES
            && !service.instances.contains(&source.instance)
        {
            service.instances.insert(source.instance.clone());
        }
    }
    let mut services: Vec<_> = services.into_values().collect();
    services.sort_unstable_by(|(a_first, a), (b_first, b)| (a_first, &a.service).cmp(&(b_first, &b.service)));
    let services = services
        .into_iter()
        .take(MAX_SERVICES)
        .map(|(_, service)| service);
    let root = trace.root().map(|root| TraceRoot {
        service: traces.source(root).service.clone(),
        name: traces.classes.get(root.class).name.clone(),
    });
    TraceSummary {
        trace_id: trace.id,
        root: root.unwrap_or_default(),
        start_unix_nano: UnixNano(start),
        duration_ns: duration,
        spans: trace.spans.len(),
        errors: trace.spans.iter().filter(|span| span.failed).count(),
        logs: 0,
        services: services.collect(),
        dropped: trace.dropped(),
    }
}

/// Matches traces against a search, with caches by class and source.
pub(crate) struct Matcher<'a> {
    search: &'a TraceSearch,
    query: Option<SpanMatcher<'a>>,
    traces: &'a Traces,
    /// Whether the service and name match, indexed by class; `None` until computed.
    classes: Vec<Option<bool>>,
    resources: HashMap<InternId, Vec<KeyValue>>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(search: &'a TraceSearch, traces: &'a Traces) -> Self {
        Self {
            search,
            query: search.query.as_ref().map(|query| SpanMatcher::new(query, traces)),
            traces,
            classes: vec![None; traces.classes.slots()],
            resources: HashMap::new(),
        }
    }

    pub(crate) fn matches(&mut self, trace: &'a Trace) -> bool {
        if self.search.status == Some(StatusFilter::Ok) && trace.spans.iter().any(|span| span.failed) {
            return false;
        }
        let query = self.query.take();
        let mut is_wanted = |span: &SpanEntry| self.entry_matches(span) && self.encoding_matches(span);
        let Some(mut query) = query else {
            return trace.spans.iter().any(is_wanted);
        };
        let found = query.any(trace, &mut is_wanted);
        self.query = Some(query);
        found
    }

    /// Evaluates the filters that only need the index entry.
    fn entry_matches(&mut self, span: &SpanEntry) -> bool {
        let (search, traces) = (self.search, self.traces);
        let class = &mut self.classes[span.class.index()];
        (search.status != Some(StatusFilter::Error) || span.failed)
            && search.min_duration.is_none_or(|least| span.duration >= least)
            && search.max_duration.is_none_or(|most| span.duration <= most)
            && search.from.is_none_or(|from| span.start >= from)
            && search.to.is_none_or(|to| span.start <= to)
            && *class.get_or_insert_with(|| class_matches(search, traces, span.class))
    }

    /// Evaluates the filters that need the encoded span.
    fn encoding_matches(&mut self, span: &SpanEntry) -> bool {
        let TraceSearch { attributes, text, .. } = self.search;
        if text.is_none() && attributes.is_empty() {
            return true;
        }
        let source = self.traces.classes.get(span.class).source;
        let mut is_of_resource = |wanted: &Attribute| {
            let resource = self.resources.entry(source);
            wanted.is_in(resource.or_insert_with(|| self.traces.sources.get(source).resource()))
        };
        // A scan of the encoding rules out most spans without decoding them.
        let may_have = |wanted: &Attribute| wanted.may_be_in(&span.encoded) || is_of_resource(wanted);
        if text.as_ref().is_some_and(|text| !text.is_in(&span.encoded)) || !attributes.iter().all(may_have) {
            return false;
        }
        let Ok(decoded) = Span::decode(&*span.encoded) else {
            return false;
        };
        let has = |wanted: &Attribute| wanted.is_in(&decoded.attributes) || is_of_resource(wanted);
        text.as_ref().is_none_or(|text| text.is_in_span(&decoded)) && attributes.iter().all(has)
    }
}

fn class_matches(search: &TraceSearch, traces: &Traces, class: InternId) -> bool {
    let class = traces.classes.get(class);
    let service = &*traces.sources.get(class.source).service;
    let is_in_names = |text: &Text| text.is_in(class.name.as_bytes()) || text.is_in(class.route().as_bytes());
    search.service.as_deref().is_none_or(|wanted| wanted == service)
        && search.name.as_ref().is_none_or(is_in_names)
}
