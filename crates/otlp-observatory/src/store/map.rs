//! Who calls whom in a window of time: services, the databases, queues and other hosts they use, and callers nobody traces.
//! Worked out from the index when asked, as the overview is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    gated::Gated,
    ids::SpanId,
    latency::{self, Latencies, Percentiles},
    shape::{Queue, Role},
    traces::{SpanEntry, Status, Trace, Traces},
};

/// How many edges are told at most: the most frequent.
const MAX_EDGES: usize = 500;

/// Traces up to this long are searched for a parent from end to end; longer ones get an index.
const SHORT: usize = 48;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Map {
    window_seconds: f64,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

#[derive(Clone, Debug, Serialize)]
struct Node {
    id: String,
    kind: &'static str,
    name: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Arc<str>>,
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

/// One end of an edge.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum End {
    Service(Arc<str>),
    Database {
        system: Arc<str>,
        name: Arc<str>,
    },
    Queue {
        system: Arc<str>,
        name: Arc<str>,
    },
    External(Arc<str>),
    /// Callers who are not traced.
    Clients,
}

/// What a span is the call of, apart from its own shape.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Caller {
    /// Its role says both ends.
    Itself,
    /// Its parent is of another service, by number.
    Service(u32),
    /// Its parent is not kept, or it has none.
    Unknown,
}

/// The map of the `window` nanoseconds before `now`.
pub(crate) fn map(traces: &Gated<Traces>, window: u64, now: u64) -> Map {
    let seconds = window as f64 / 1e9;
    let calls = {
        let traces = traces.read();
        Calls::since(&traces, now.saturating_sub(window)).by_ends(&traces)
    };
    let calls = latency::most_frequent(calls.into_iter().collect(), MAX_EDGES, Latencies::count);
    let mut nodes = BTreeMap::new();
    let edges = calls
        .into_iter()
        .map(|((from, to), latencies)| {
            for end in [&from, &to] {
                nodes.entry(end.id()).or_insert_with(|| end.node());
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
        nodes: nodes.into_values().collect(),
        edges,
    }
}

/// Calls by caller and shape, and the services by number.
struct Calls {
    services: Vec<Arc<str>>,
    by_shape: HashMap<(Caller, super::intern::Shared), Latencies>,
}

impl Calls {
    fn since(traces: &Traces, start: u64) -> Self {
        let (services, service_of) = services(traces);
        let mut by_shape: HashMap<_, Latencies> = HashMap::new();
        for trace in traces.since(start) {
            let callers = Callers::new(trace, &service_of);
            for span in trace.spans.iter().filter(|span| span.moment >= start) {
                let role = &traces.shapes.get(span.shape).role;
                if let Some(caller) = callers.of(span, role) {
                    let latencies = by_shape.entry((caller, span.shape)).or_default();
                    latencies.add(span.duration, span.status == Status::Error);
                }
            }
        }
        Self { services, by_shape }
    }

    /// With the ends as they are named; shapes may have the same.
    fn by_ends(self, traces: &Traces) -> HashMap<(End, End), Latencies> {
        let mut by_ends: HashMap<_, Latencies> = HashMap::new();
        for ((caller, shape), latencies) in self.by_shape {
            let shape = traces.shapes.get(shape);
            let service = End::Service(traces.origins.get(shape.origin).service.clone());
            let ends = match (caller, &shape.role) {
                (Caller::Service(number), _) => {
                    (End::Service(self.services[number as usize].clone()), service)
                }
                (Caller::Unknown, _) => (End::Clients, service),
                (Caller::Itself, Role::Send(queue)) => (service, End::queue(queue)),
                (Caller::Itself, Role::Receive(queue) | Role::Task { queue, .. }) => {
                    (End::queue(queue), service)
                }
                (Caller::Itself, Role::Database { system, namespace }) => {
                    let name = namespace.as_ref().unwrap_or(system).clone();
                    let system = system.clone();
                    (service, End::Database { system, name })
                }
                (
                    Caller::Itself,
                    Role::Call {
                        address: Some(address),
                    },
                ) => (service, End::External(address.clone())),
                (Caller::Itself, Role::Call { address: None } | Role::Request { .. } | Role::Internal) => {
                    continue;
                }
            };
            by_ends.entry(ends).or_default().append(latencies);
        }
        by_ends
    }
}

/// Services by number, and the number of each shape's service.
fn services(traces: &Traces) -> (Vec<Arc<str>>, Vec<u32>) {
    let mut services = Vec::new();
    let mut numbers: HashMap<&Arc<str>, u32> = HashMap::new();
    let of_slots = traces.shapes.slot_values().map(|shape| {
        let Some(shape) = shape else {
            return u32::MAX;
        };
        let service = &traces.origins.get(shape.origin).service;
        *numbers.entry(service).or_insert_with(|| {
            services.push(service.clone());
            services.len() as u32 - 1
        })
    });
    let of_slots = of_slots.collect();
    (services, of_slots)
}

/// Who calls the spans of one trace.
struct Callers<'a> {
    trace: &'a Trace,
    service_of: &'a [u32],
    /// Whether spans of several services are in it.
    is_mixed: bool,
    index: Option<HashMap<SpanId, &'a SpanEntry>>,
    /// Spans with a child of another service.
    answered: HashSet<SpanId>,
}

impl<'a> Callers<'a> {
    fn new(trace: &'a Trace, service_of: &'a [u32]) -> Self {
        let service = |span: &SpanEntry| service_of[span.shape.index()];
        let first = trace.spans.first().map(service);
        let is_mixed = trace.spans.iter().any(|span| Some(service(span)) != first);
        let index =
            (trace.spans.len() > SHORT).then(|| trace.spans.iter().map(|span| (span.id, span)).collect());
        let mut callers = Self {
            trace,
            service_of,
            is_mixed,
            index,
            answered: HashSet::new(),
        };
        if is_mixed {
            let answered = trace
                .spans
                .iter()
                .filter(|span| callers.other_service(span).is_some());
            callers.answered = answered.filter_map(|span| span.parent).collect();
        }
        callers
    }

    fn service(&self, span: &SpanEntry) -> u32 {
        self.service_of[span.shape.index()]
    }

    fn parent(&self, span: &SpanEntry) -> Option<&SpanEntry> {
        let parent = span.parent?;
        match &self.index {
            Some(index) => index.get(&parent).copied(),
            None => self.trace.spans.iter().find(|span| span.id == parent),
        }
    }

    /// The service of the span's parent, if that is another one.
    fn other_service(&self, span: &SpanEntry) -> Option<u32> {
        let parent = self.service(self.parent(span)?);
        (parent != self.service(span)).then_some(parent)
    }

    /// The caller of `span`; `None` when it is no call.
    fn of(&self, span: &SpanEntry, role: &Role<Arc<str>>) -> Option<Caller> {
        match role {
            Role::Task { .. } | Role::Receive(_) | Role::Send(_) | Role::Database { .. } => {
                Some(Caller::Itself)
            }
            Role::Request { .. } if self.parent(span).is_none() => Some(Caller::Unknown),
            Role::Call { address: Some(_) } if !self.answered.contains(&span.id) => Some(Caller::Itself),
            Role::Request { .. } | Role::Internal | Role::Call { .. } if self.is_mixed => {
                self.other_service(span).map(Caller::Service)
            }
            Role::Request { .. } | Role::Internal | Role::Call { .. } => None,
        }
    }
}

impl End {
    fn queue(queue: &Queue<Arc<str>>) -> Self {
        let system = queue.system.clone().unwrap_or_else(|| "messaging".into());
        Self::Queue {
            name: queue.destination.clone().unwrap_or_else(|| system.clone()),
            system,
        }
    }

    fn id(&self) -> String {
        match self {
            Self::Service(name) => format!("service:{name}"),
            Self::Database { system, name } => format!("database:{system}/{name}"),
            Self::Queue { system, name } => format!("queue:{system}/{name}"),
            Self::External(address) => format!("external:{address}"),
            Self::Clients => "external:clients".to_owned(),
        }
    }

    fn node(&self) -> Node {
        let (kind, name, system) = match self {
            Self::Service(name) => ("service", name.clone(), None),
            Self::Database { system, name } => ("database", name.clone(), Some(system.clone())),
            Self::Queue { system, name } => ("queue", name.clone(), Some(system.clone())),
            Self::External(address) => ("external", address.clone(), None),
            Self::Clients => ("client", "clients".into(), None),
        };
        Node {
            id: self.id(),
            kind,
            name,
            system,
        }
    }
}
