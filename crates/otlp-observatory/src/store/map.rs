//! Service map: calls between services, databases, queues, other hosts and untraced clients in a time window.
//! The map is computed from the index for each request, like the overview.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    fair_lock::FairLock,
    ids::SpanId,
    intern::InternId,
    latency::{Latencies, Percentiles, most_frequent},
    span_class::{Queue, Role, SpanClass},
    traces::{SpanEntry, Trace, Traces},
};

/// Maximum number of edges; the most frequent are returned.
const MAX_EDGES: usize = 500;

/// Maximum number of spans of a trace in which parents are found by linear search. Longer traces get an
/// index.
const MAX_LINEAR_SEARCH: usize = 48;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Map {
    window_seconds: f64,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

#[derive(Clone, Debug, Serialize)]
struct Node {
    id: String,
    #[serde(flatten)]
    endpoint: Endpoint,
}

#[derive(Clone, Debug, Serialize)]
struct Edge {
    from: String,
    to: String,
    calls: usize,
    rate: f64,
    errors: usize,
    #[serde(flatten)]
    percentiles: Percentiles,
}

/// Endpoint of an edge.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
struct Endpoint {
    kind: Kind,
    /// System of a database or queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Arc<str>>,
    name: Arc<str>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Service,
    Database,
    Queue,
    External,
    /// Untraced callers.
    Client,
}

/// Caller of a span, unless the span's class names it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Caller<'a> {
    /// Named by the span's role, which determines both endpoints.
    ByRole,
    /// Another service, to which the span's parent belongs.
    Service(&'a Arc<str>),
    /// Unknown, because the span has no parent or the parent is not stored.
    Unknown,
}

/// Returns the service map of the `window` nanoseconds before `now`.
pub(crate) fn map(traces: &FairLock<Traces>, window: u64, now: u64) -> Map {
    let seconds = window as f64 / 1e9;
    let calls = calls_since(&traces.read(), now.saturating_sub(window));
    let mut nodes = BTreeMap::new();
    let edges = most_frequent(calls, MAX_EDGES, Latencies::count, |(from, to), latencies| {
        for endpoint in [&from, &to] {
            nodes.entry(endpoint.id()).or_insert_with(|| endpoint.clone());
        }
        Edge {
            from: from.id(),
            to: to.id(),
            calls: latencies.count(),
            rate: latencies.count() as f64 / seconds,
            errors: latencies.errors(),
            percentiles: latencies.percentiles(),
        }
    });
    let nodes = nodes.into_iter().map(|(id, endpoint)| Node { id, endpoint });
    Map {
        window_seconds: seconds,
        nodes: nodes.collect(),
        edges,
    }
}

/// Returns the latencies of the calls since `start`, by endpoints.
fn calls_since(traces: &Traces, start: u64) -> HashMap<(Endpoint, Endpoint), Latencies> {
    let service_of = |class: &SpanClass| &traces.sources.get(class.source).service;
    let classes = traces.classes.slot_values();
    let services: Vec<_> = classes.map(|class| class.map(service_of)).collect();
    // Grouping by class first avoids building endpoints for every span.
    let mut by_class: HashMap<(Caller<'_>, InternId), Latencies> = HashMap::new();
    for trace in traces.since(start) {
        let callers = Callers::new(trace, &services);
        for span in trace.spans.iter().filter(|span| span.effective_end >= start) {
            if let Some(caller) = callers.of(span, &traces.classes.get(span.class).role) {
                let latencies = by_class.entry((caller, span.class)).or_default();
                latencies.add(span.duration, span.failed);
            }
        }
    }
    let mut by_endpoints: HashMap<_, Latencies> = HashMap::new();
    for ((caller, class), latencies) in by_class {
        let class = traces.classes.get(class);
        let service = Endpoint::new(Kind::Service, service_of(class));
        let endpoints = match (caller, &class.role) {
            (Caller::Service(name), _) => (Endpoint::new(Kind::Service, name), service),
            (Caller::Unknown, _) => (Endpoint::new(Kind::Client, &"clients".into()), service),
            (Caller::ByRole, Role::Send(queue)) => (service, Endpoint::queue(queue)),
            (Caller::ByRole, Role::Receive(queue) | Role::Task { queue, .. }) => {
                (Endpoint::queue(queue), service)
            }
            (Caller::ByRole, Role::Database { system, namespace }) => {
                let database = Endpoint {
                    kind: Kind::Database,
                    system: Some(system.clone()),
                    name: namespace.as_ref().unwrap_or(system).clone(),
                };
                (service, database)
            }
            (Caller::ByRole, Role::Call { address: Some(host) }) => {
                (service, Endpoint::new(Kind::External, host))
            }
            (Caller::ByRole, Role::Call { address: None } | Role::Request { .. } | Role::Internal) => {
                continue;
            }
        };
        by_endpoints.entry(endpoints).or_default().append(latencies);
    }
    by_endpoints
}

/// Callers of the spans of one trace.
struct Callers<'a> {
    trace: &'a Trace,
    /// Services, indexed by class.
    services: &'a [Option<&'a Arc<str>>],
    /// Whether the trace has spans of several services, so that spans may have callers in other services.
    is_cross_service: bool,
    index: Option<HashMap<SpanId, &'a SpanEntry>>,
    /// Ids of spans with a child in another service.
    with_remote_child: HashSet<SpanId>,
}

impl<'a> Callers<'a> {
    fn new(trace: &'a Trace, services: &'a [Option<&'a Arc<str>>]) -> Self {
        let mut callers = Self {
            trace,
            services,
            is_cross_service: false,
            index: (trace.spans.len() > MAX_LINEAR_SEARCH)
                .then(|| trace.spans.iter().map(|span| (span.id, span)).collect()),
            with_remote_child: HashSet::new(),
        };
        let first = trace.spans.first().map(|span| callers.service(span));
        callers.is_cross_service = trace
            .spans
            .iter()
            .any(|span| Some(callers.service(span)) != first);
        let called = trace.spans.iter();
        let called = called.filter(|span| callers.other_service(span).is_some());
        callers.with_remote_child = called.filter_map(|span| span.parent).collect();
        callers
    }

    fn service(&self, span: &SpanEntry) -> Option<&'a Arc<str>> {
        self.services[span.class.index()]
    }

    fn parent(&self, span: &SpanEntry) -> Option<&SpanEntry> {
        let parent = span.parent?;
        match &self.index {
            Some(index) => index.get(&parent).copied(),
            None => self.trace.spans.iter().find(|span| span.id == parent),
        }
    }

    /// Returns the service of the span's parent if it differs from the span's.
    fn other_service(&self, span: &SpanEntry) -> Option<&'a Arc<str>> {
        if !self.is_cross_service {
            return None;
        }
        let parent = self.service(self.parent(span)?);
        parent.filter(|_| parent != self.service(span))
    }

    /// Returns the caller of `span`; `None` if the span is not a call.
    fn of(&self, span: &SpanEntry, role: &Role<Arc<str>>) -> Option<Caller<'a>> {
        match role {
            Role::Task { .. } | Role::Receive(_) | Role::Send(_) | Role::Database { .. } => {
                Some(Caller::ByRole)
            }
            Role::Request { .. } if self.parent(span).is_none() => Some(Caller::Unknown),
            Role::Call { address: Some(_) } if !self.with_remote_child.contains(&span.id) => {
                Some(Caller::ByRole)
            }
            Role::Request { .. } | Role::Internal | Role::Call { .. } => {
                self.other_service(span).map(Caller::Service)
            }
        }
    }
}

impl Endpoint {
    fn new(kind: Kind, name: &Arc<str>) -> Self {
        Self {
            kind,
            system: None,
            name: name.clone(),
        }
    }

    fn queue(queue: &Queue<Arc<str>>) -> Self {
        let system = queue.system.clone().unwrap_or_else(|| "messaging".into());
        Self {
            kind: Kind::Queue,
            name: queue.destination.clone().unwrap_or_else(|| system.clone()),
            system: Some(system),
        }
    }

    fn id(&self) -> String {
        let kind = match self.kind {
            Kind::Service => "service",
            Kind::Database => "database",
            Kind::Queue => "queue",
            Kind::External | Kind::Client => "external",
        };
        let name = &self.name;
        match &self.system {
            Some(system) => format!("{kind}:{system}/{name}"),
            None => format!("{kind}:{name}"),
        }
    }
}
