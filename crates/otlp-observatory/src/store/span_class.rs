//! Span classes: the source, name and role that similar spans share, for example the requests of a route or
//! the runs of a task. The class is determined when a span arrives, so the overview and the map do not decode
//! spans.

use std::{cell::Cell, hash::Hash, sync::Arc};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::{
    aliases::{self, Attribute},
    intern::{Footprint, InternId, Interner},
    memory,
    source::Source,
};

/// Properties that spans of the same operation share.
#[derive(Clone, Debug)]
pub(crate) struct SpanClass {
    pub(crate) source: InternId,
    pub(crate) name: Arc<str>,
    pub(crate) role: Role<Arc<str>>,
}

/// Role of a span, with its names according to the semantic conventions.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Role<S> {
    /// Internal operation.
    Internal,
    /// Server side of a request.
    Request { method: Option<S>, route: Option<S> },
    /// Execution of a task from a queue.
    Task {
        task: Option<S>,
        state: Option<S>,
        queue: Queue<S>,
    },
    /// Publication of a message to a queue.
    Send(Queue<S>),
    /// Receipt of a message from a queue, without processing.
    Receive(Queue<S>),
    /// Database query.
    Database { system: S, namespace: Option<S> },
    /// Client side of a request, with the name of its peer and the attribute that contains it.
    Call { peer: Option<(S, &'static str)> },
}

/// Attributes that name the peer of a client span, the most telling first.
const PEERS: [&Attribute; 3] = [
    &aliases::PEER_SERVICE,
    &aliases::SERVER_ADDRESS,
    &aliases::PEER_ADDRESS,
];

/// Queue named by the `messaging.*` attributes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Queue<S> {
    pub(crate) system: Option<S>,
    pub(crate) destination: Option<S>,
}

impl SpanClass {
    /// Interns the class of `span` and adds a reference to it. A new class holds a reference to `source`.
    pub(crate) fn intern(
        classes: &mut Interner<Self>,
        sources: &mut Interner<Source>,
        source: InternId,
        span: &Span,
    ) -> InternId {
        let name = span.name.as_str();
        let role = Role::of(span);
        let same = |class: &Self| {
            class.source == source && &*class.name == name && class.role.map_ref(|text| &**text) == role
        };
        let make = || {
            sources.retain(source);
            Self {
                source,
                name: name.into(),
                role: role.map_ref(|text| Arc::from(*text)),
            }
        };
        classes.intern(&(source, name, &role), same, make)
    }

    /// Removes the reference of a span to its class.
    pub(crate) fn release(classes: &mut Interner<Self>, sources: &mut Interner<Source>, class: InternId) {
        if let Some(last) = classes.release(class) {
            sources.release(last.source);
        }
    }

    /// Returns the label of requests of this class: the method and route, or else the name of the span.
    pub(crate) fn route(&self) -> Arc<str> {
        match &self.role {
            Role::Request {
                method: Some(method),
                route: Some(route),
            } => format!("{method} {route}").into(),
            _ => self.name.clone(),
        }
    }
}

impl Footprint for SpanClass {
    fn heap_bytes(&self) -> usize {
        let bytes = Cell::new(memory::shared(self.name.len()));
        // `map_ref` calls the closure for every name of the role; its result is not needed.
        self.role
            .map_ref(|name| bytes.set(bytes.get() + memory::shared(name.len())));
        bytes.get()
    }
}

impl<'a> Role<&'a str> {
    /// Determines the role from the attributes of the OpenTelemetry semantic conventions.
    fn of(span: &'a Span) -> Self {
        let text = |attribute: &Attribute| attribute.text(&span.attributes);
        let queue = || Queue {
            system: text(&aliases::MESSAGING_SYSTEM),
            destination: text(&aliases::MESSAGING_DESTINATION),
        };
        match span.kind() {
            SpanKind::Server => Self::Request {
                method: text(&aliases::HTTP_METHOD),
                route: text(&aliases::HTTP_ROUTE),
            },
            SpanKind::Consumer => match text(&aliases::CELERY_TASK) {
                None if text(&aliases::MESSAGING_OPERATION) != Some("process") => Self::Receive(queue()),
                task => Self::Task {
                    task,
                    state: text(&aliases::CELERY_STATE),
                    queue: queue(),
                },
            },
            SpanKind::Producer => Self::Send(queue()),
            SpanKind::Client => match text(&aliases::DB_SYSTEM) {
                Some(system) => Self::Database {
                    system,
                    namespace: text(&aliases::DB_NAMESPACE),
                },
                None => Self::Call {
                    peer: PEERS.into_iter().find_map(|by| Some((text(by)?, by.name()))),
                },
            },
            SpanKind::Internal | SpanKind::Unspecified => Self::Internal,
        }
    }
}

impl<S> Role<S> {
    fn map_ref<'s, T>(&'s self, to: impl Fn(&'s S) -> T) -> Role<T> {
        let queue = |queue: &'s Queue<S>| Queue {
            system: queue.system.as_ref().map(&to),
            destination: queue.destination.as_ref().map(&to),
        };
        match self {
            Self::Internal => Role::Internal,
            Self::Request { method, route } => Role::Request {
                method: method.as_ref().map(&to),
                route: route.as_ref().map(&to),
            },
            Self::Task {
                task,
                state,
                queue: from,
            } => Role::Task {
                task: task.as_ref().map(&to),
                state: state.as_ref().map(&to),
                queue: queue(from),
            },
            Self::Send(into) => Role::Send(queue(into)),
            Self::Receive(from) => Role::Receive(queue(from)),
            Self::Database { system, namespace } => Role::Database {
                system: to(system),
                namespace: namespace.as_ref().map(&to),
            },
            Self::Call { peer } => Role::Call {
                peer: peer.as_ref().map(|(name, by)| (to(name), *by)),
            },
        }
    }
}
