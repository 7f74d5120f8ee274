//! Service map: calls between services, databases, queues, other hosts and untraced clients in a time window.
//! The map is computed from the index for each request, like the overview.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    aliases::{self, Attribute},
    fair_lock::FairLock,
    ids::SpanId,
    intern::InternId,
    latency::{Latencies, Percentiles, most_frequent},
    span_class::{Queue, Role, SpanClass},
    traces::{SpanEntry, Trace, Traces},
};

/// Maximum number of edges. Calls between services have precedence over others, and calls by untraced clients
/// come last; within these groups, the most frequent are returned.
const MAX_EDGES: usize = 500;

/// Maximum number of spans of a trace in which parents are found by linear search. Longer traces get an
/// index.
const MAX_LINEAR_SEARCH: usize = 48;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Map {
    window_seconds: f64,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    left_out: LeftOut,
}

/// Edges beyond the maximum number.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct LeftOut {
    edges: usize,
    calls: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Node {
    id: String,
    #[serde(flatten)]
    endpoint: Endpoint,
    /// Attributes of the spans that made the node, as filters for traces.
    attributes: BTreeMap<&'static str, Arc<str>>,
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

/// Calls by their endpoints, and the attributes that name each endpoint.
#[derive(Debug, Default)]
struct Calls {
    latencies: HashMap<(Endpoint, Endpoint), Latencies>,
    attributes: HashMap<Endpoint, BTreeMap<&'static str, Arc<str>>>,
}

/// Returns the service map of the `window` nanoseconds before `now`, optionally only the calls from and to
/// `service`.
pub(crate) fn map(traces: &FairLock<Traces>, window: u64, now: u64, service: Option<&str>) -> Map {
    let seconds = window as f64 / 1e9;
    let mut calls = calls_since(&traces.read(), now.saturating_sub(window));
    if let Some(service) = service {
        let is_wanted = |endpoint: &Endpoint| endpoint.kind == Kind::Service && &*endpoint.name == service;
        calls
            .latencies
            .retain(|(from, to), _| is_wanted(from) || is_wanted(to));
    }
    let mut nodes = BTreeMap::new();
    let mut edges = Vec::new();
    let mut left_out = LeftOut::default();
    for precedence in 0..=2 {
        let of_group = |(from, to): &(Endpoint, Endpoint), _: &mut _| precedence_of(from, to) == precedence;
        let group: HashMap<_, _> = calls.latencies.extract_if(of_group).collect();
        let total =
            |latencies: &HashMap<_, Latencies>| latencies.values().map(Latencies::count).sum::<usize>();
        left_out.edges += group.len();
        left_out.calls += total(&group);
        let room = MAX_EDGES - edges.len();
        edges.extend(most_frequent(
            group,
            room,
            Latencies::count,
            |(from, to), latencies| {
                left_out.edges -= 1;
                left_out.calls -= latencies.count();
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
            },
        ));
    }
    edges.sort_by_key(|edge| Reverse(edge.calls));
    let nodes = nodes.into_iter().map(|(id, endpoint)| Node {
        id,
        attributes: calls.attributes.remove(&endpoint).unwrap_or_default(),
        endpoint,
    });
    Map {
        window_seconds: seconds,
        nodes: nodes.collect(),
        edges,
        left_out,
    }
}

/// Returns the group of an edge; groups with lower numbers are returned first.
fn precedence_of(from: &Endpoint, to: &Endpoint) -> usize {
    match (from.kind, to.kind) {
        (Kind::Service, Kind::Service) => 0,
        (Kind::Client, _) => 2,
        _ => 1,
    }
}

/// Returns the calls since `start`.
fn calls_since(traces: &Traces, start: u64) -> Calls {
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
    let mut calls = Calls::default();
    for ((caller, class), latencies) in by_class {
        let class = traces.classes.get(class);
        let service = Endpoint::new(Kind::Service, service_of(class));
        let endpoints = match (caller, &class.role) {
            (Caller::Service(name), _) => (Endpoint::new(Kind::Service, name), service),
            (Caller::Unknown, _) => (Endpoint::new(Kind::Client, &"clients".into()), service),
            (Caller::ByRole, role) => {
                let Some((other, attributes)) = Endpoint::of(role) else {
                    continue;
                };
                calls.attributes.insert(other.clone(), attributes);
                match role {
                    Role::Receive(_) | Role::Task { .. } => (other, service),
                    _ => (service, other),
                }
            }
        };
        calls.latencies.entry(endpoints).or_default().append(latencies);
    }
    calls
}

/// Callers of the spans of one trace.
struct Callers<'a> {
    trace: &'a Trace,
    /// Services, indexed by class.
    services: &'a [Option<&'a Arc<str>>],
    /// Whether the trace has spans of several services, so that spans may have callers in other services.
    is_cross_service: bool,
    /// Spans by id and service, and the first span with each id.
    index: Option<HashMap<(SpanId, Option<&'a str>), &'a SpanEntry>>,
    /// Ids and classes of spans with a child in another service.
    with_remote_child: HashSet<(SpanId, InternId)>,
}

impl<'a> Callers<'a> {
    fn new(trace: &'a Trace, services: &'a [Option<&'a Arc<str>>]) -> Self {
        let mut callers = Self {
            trace,
            services,
            is_cross_service: false,
            index: None,
            with_remote_child: HashSet::new(),
        };
        if trace.spans.len() > MAX_LINEAR_SEARCH {
            let mut index = HashMap::new();
            for span in &trace.spans {
                index.entry((span.id, callers.service_name(span))).or_insert(span);
                index.entry((span.id, None)).or_insert(span);
            }
            callers.index = Some(index);
        }
        let first = trace.spans.first().map(|span| callers.service(span));
        callers.is_cross_service = trace
            .spans
            .iter()
            .any(|span| Some(callers.service(span)) != first);
        let called = trace.spans.iter();
        let called = called.filter(|span| callers.other_service(span).is_some());
        callers.with_remote_child = called
            .filter_map(|span| callers.parent(span).map(|parent| (parent.id, parent.class)))
            .collect();
        callers
    }

    fn service(&self, span: &SpanEntry) -> Option<&'a Arc<str>> {
        self.services[span.class.index()]
    }

    fn service_name(&self, span: &SpanEntry) -> Option<&'a str> {
        self.service(span).map(|service| &**service)
    }

    /// Returns the parent of a span. Spans of different services may have the same id, so the one of its service precedes.
    fn parent(&self, span: &SpanEntry) -> Option<&SpanEntry> {
        let parent = span.parent?;
        let service = self.service_name(span);
        if let Some(index) = &self.index {
            let own = index.get(&(parent, service));
            return own.or_else(|| index.get(&(parent, None))).copied();
        }
        let mut with_id = self.trace.spans.iter().filter(|other| other.id == parent);
        let own = with_id.clone().find(|other| self.service_name(other) == service);
        own.or_else(|| with_id.next())
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
            Role::Call { peer: Some(_) } if !self.with_remote_child.contains(&(span.id, span.class)) => {
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

    /// Returns the endpoint that a role names, with the attributes that contain its names.
    fn of(role: &Role<Arc<str>>) -> Option<(Self, BTreeMap<&'static str, Arc<str>>)> {
        let attributes = |named: [(&Attribute, &Option<Arc<str>>); 2]| {
            let named = named.into_iter();
            let named = named.filter_map(|(attribute, name)| Some((attribute.name(), name.clone()?)));
            named.collect()
        };
        match role {
            Role::Send(queue) | Role::Receive(queue) | Role::Task { queue, .. } => {
                let Queue { system, destination } = queue;
                let system_name = system.clone().unwrap_or_else(|| "messaging".into());
                let endpoint = Self {
                    kind: Kind::Queue,
                    name: destination.as_ref().unwrap_or(&system_name).clone(),
                    system: Some(system_name),
                };
                let named = [
                    (&aliases::MESSAGING_SYSTEM, system),
                    (&aliases::MESSAGING_DESTINATION, destination),
                ];
                Some((endpoint, attributes(named)))
            }
            Role::Database { system, namespace } => {
                let endpoint = Self {
                    kind: Kind::Database,
                    name: namespace.as_ref().unwrap_or(system).clone(),
                    system: Some(system.clone()),
                };
                let named = [
                    (&aliases::DB_SYSTEM, &Some(system.clone())),
                    (&aliases::DB_NAMESPACE, namespace),
                ];
                Some((endpoint, attributes(named)))
            }
            Role::Call {
                peer: Some((name, by)),
            } => {
                let named = BTreeMap::from([(*by, name.clone())]);
                Some((Self::new(Kind::External, name), named))
            }
            Role::Call { peer: None } | Role::Request { .. } | Role::Internal => None,
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
