//! Service map: calls between services, databases, queues, other hosts and untraced clients in a time window.
//! Computed from the index for each request, like the overview.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    fair_lock::FairLock,
    ids::SpanId,
    latency::{self, Latencies, Percentiles},
    span_class::{Queue, Role},
    traces::{SpanEntry, Trace, Traces},
};

/// Maximum number of edges; the most frequent are returned.
const MAX_EDGES: usize = 500;

/// Maximum number of spans of a trace for which parents are found by linear search; longer traces get an
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

/// Caller of a span, as far as the span's class does not name it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Caller {
    /// The span's role determines both endpoints.
    ByRole,
    /// The span's parent belongs to this other service; an index into [`Calls::services`].
    Service(u32),
    /// The span has no parent, or the parent is not stored.
    Unknown,
}

/// Returns the service map of the `window` nanoseconds before `now`.
pub(crate) fn map(traces: &FairLock<Traces>, window: u64, now: u64) -> Map {
    let seconds = window as f64 / 1e9;
    let calls = {
        let traces = traces.read();
        Calls::since(&traces, now.saturating_sub(window)).by_endpoints(&traces)
    };
    let calls = latency::most_frequent(calls.into_iter().collect(), MAX_EDGES, Latencies::count);
    let mut nodes = BTreeMap::new();
    let edges = calls
        .into_iter()
        .map(|((from, to), latencies)| {
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
        })
        .collect();
    Map {
        window_seconds: seconds,
        nodes: nodes
            .into_iter()
            .map(|(id, endpoint)| Node { id, endpoint })
            .collect(),
        edges,
    }
}

/// Latencies of calls by caller and class of the called span.
struct Calls {
    services: Vec<Arc<str>>,
    by_class: HashMap<(Caller, super::intern::InternId), Latencies>,
}

impl Calls {
    fn since(traces: &Traces, start: u64) -> Self {
        let (services, service_of) = services(traces);
        let mut by_class: HashMap<_, Latencies> = HashMap::new();
        for trace in traces.since(start) {
            let callers = Callers::new(trace, &service_of);
            for span in trace.spans.iter().filter(|span| span.effective_end >= start) {
                let role = &traces.classes.get(span.class).role;
                if let Some(caller) = callers.of(span, role) {
                    let latencies = by_class.entry((caller, span.class)).or_default();
                    latencies.add(span.duration, span.failed);
                }
            }
        }
        Self { services, by_class }
    }

    /// Groups the calls by endpoints, which several classes may share.
    fn by_endpoints(self, traces: &Traces) -> HashMap<(Endpoint, Endpoint), Latencies> {
        let mut by_endpoints: HashMap<_, Latencies> = HashMap::new();
        for ((caller, class), latencies) in self.by_class {
            let class = traces.classes.get(class);
            let service = Endpoint::new(Kind::Service, &traces.sources.get(class.source).service);
            let endpoints = match (caller, &class.role) {
                (Caller::Service(number), _) => (
                    Endpoint::new(Kind::Service, &self.services[number as usize]),
                    service,
                ),
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
}

/// Returns the services, and for each class the index of its service.
fn services(traces: &Traces) -> (Vec<Arc<str>>, Vec<u32>) {
    let mut services = Vec::new();
    let mut numbers: HashMap<&Arc<str>, u32> = HashMap::new();
    let of_slots = traces.classes.slot_values().map(|class| {
        let Some(class) = class else {
            return u32::MAX;
        };
        let service = &traces.sources.get(class.source).service;
        *numbers.entry(service).or_insert_with(|| {
            services.push(service.clone());
            services.len() as u32 - 1
        })
    });
    let of_slots = of_slots.collect();
    (services, of_slots)
}

/// Finds the callers of the spans of one trace.
struct Callers<'a> {
    trace: &'a Trace,
    service_of: &'a [u32],
    /// Whether the trace has spans of several services.
    is_cross_service: bool,
    index: Option<HashMap<SpanId, &'a SpanEntry>>,
    /// Ids of spans with a child in another service.
    with_remote_child: HashSet<SpanId>,
}

impl<'a> Callers<'a> {
    fn new(trace: &'a Trace, service_of: &'a [u32]) -> Self {
        let service = |span: &SpanEntry| service_of[span.class.index()];
        let first = trace.spans.first().map(service);
        let is_cross_service = trace.spans.iter().any(|span| Some(service(span)) != first);
        let index = (trace.spans.len() > MAX_LINEAR_SEARCH)
            .then(|| trace.spans.iter().map(|span| (span.id, span)).collect());
        let mut callers = Self {
            trace,
            service_of,
            is_cross_service,
            index,
            with_remote_child: HashSet::new(),
        };
        if is_cross_service {
            let with_remote_child = trace
                .spans
                .iter()
                .filter(|span| callers.other_service(span).is_some());
            callers.with_remote_child = with_remote_child.filter_map(|span| span.parent).collect();
        }
        callers
    }

    fn service(&self, span: &SpanEntry) -> u32 {
        self.service_of[span.class.index()]
    }

    fn parent(&self, span: &SpanEntry) -> Option<&SpanEntry> {
        let parent = span.parent?;
        match &self.index {
            Some(index) => index.get(&parent).copied(),
            None => self.trace.spans.iter().find(|span| span.id == parent),
        }
    }

    /// Returns the service of the span's parent if it differs from the span's.
    fn other_service(&self, span: &SpanEntry) -> Option<u32> {
        let parent = self.service(self.parent(span)?);
        (parent != self.service(span)).then_some(parent)
    }

    /// Returns the caller of `span`; `None` if the span is not a call.
    fn of(&self, span: &SpanEntry, role: &Role<Arc<str>>) -> Option<Caller> {
        match role {
            Role::Task { .. } | Role::Receive(_) | Role::Send(_) | Role::Database { .. } => {
                Some(Caller::ByRole)
            }
            Role::Request { .. } if self.parent(span).is_none() => Some(Caller::Unknown),
            Role::Call { address: Some(_) } if !self.with_remote_child.contains(&span.id) => {
                Some(Caller::ByRole)
            }
            Role::Request { .. } | Role::Internal | Role::Call { .. } if self.is_cross_service => {
                self.other_service(span).map(Caller::Service)
            }
            Role::Request { .. } | Role::Internal | Role::Call { .. } => None,
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
