//! Span classes: the source, name, kind and role that similar spans share, for example a route's requests or
//! a task's runs. A span's class is determined when the span arrives, so that the overview and the map need
//! not decode spans.

use std::{hash::Hash, sync::Arc};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::{
    intern::{Footprint, InternId, Interner},
    memory,
    source::{Source, text_of},
};

/// Properties that spans of the same operation share.
#[derive(Clone, Debug)]
pub(crate) struct SpanClass {
    pub(crate) source: InternId,
    pub(crate) name: Arc<str>,
    pub(crate) kind: SpanKind,
    pub(crate) role: Role<Arc<str>>,
}

/// Function of a span, with the names from the semantic conventions.
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
    /// Receipt of a message from a queue without its processing.
    Receive(Queue<S>),
    /// Database query.
    Database { system: S, namespace: Option<S> },
    /// Client side of a request.
    Call { address: Option<S> },
}

/// Queue named by the `messaging.*` attributes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Queue<S> {
    pub(crate) system: Option<S>,
    pub(crate) destination: Option<S>,
}

impl<S> Queue<S> {
    fn names(&self) -> [Option<&S>; 2] {
        [self.system.as_ref(), self.destination.as_ref()]
    }
}

impl SpanClass {
    /// Interns the class of `span`. A new class holds a reference to `source`.
    pub(crate) fn intern(
        classes: &mut Interner<Self>,
        sources: &mut Interner<Source>,
        source: InternId,
        span: &Span,
    ) -> InternId {
        let name = span.name.as_str();
        let kind = span.kind();
        let role = Role::of(span);
        let same = |class: &Self| {
            class.source == source
                && &*class.name == name
                && class.kind == kind
                && class.role.map_ref(|text| &**text) == role
        };
        let make = || {
            sources.retain(source);
            Self {
                source,
                name: name.into(),
                kind,
                role: role.map_ref(|text| Arc::from(*text)),
            }
        };
        classes.intern(&(source, name, kind, &role), same, make)
    }

    /// Removes a span's reference to its class.
    pub(crate) fn release(classes: &mut Interner<Self>, sources: &mut Interner<Source>, class: InternId) {
        if let Some(last) = classes.release(class) {
            sources.release(last.source);
        }
    }

    /// Returns the label for requests of this class: method and route, or the span's name.
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
        let role: usize = self.role.names().map(|name| memory::shared(name.len())).sum();
        memory::shared(self.name.len()) + role
    }
}

impl<'a> Role<&'a str> {
    fn of(span: &'a Span) -> Self {
        let mut found = Conventions::default();
        for attribute in &span.attributes {
            if let Some(slot) = found.slot(&attribute.key) {
                *slot = text_of(attribute);
            }
        }
        let queue = Queue {
            system: found.messaging_system,
            destination: found.destination,
        };
        match span.kind() {
            SpanKind::Server => Self::Request {
                method: found.method,
                route: found.route,
            },
            SpanKind::Consumer if found.task.is_some() || found.operation == Some("process") => Self::Task {
                task: found.task,
                state: found.state,
                queue,
            },
            SpanKind::Consumer => Self::Receive(queue),
            SpanKind::Producer => Self::Send(queue),
            SpanKind::Client => match found.db_system.or(found.old_db_system) {
                Some(system) => Self::Database {
                    system,
                    namespace: found.db_namespace.or(found.old_db_name),
                },
                None => Self::Call {
                    address: found.address,
                },
            },
            SpanKind::Internal | SpanKind::Unspecified => Self::Internal,
        }
    }
}

/// Attributes that determine the role of a span (OpenTelemetry semantic conventions 1.3x and the older
/// names).
#[derive(Default)]
struct Conventions<'a> {
    method: Option<&'a str>,
    route: Option<&'a str>,
    operation: Option<&'a str>,
    messaging_system: Option<&'a str>,
    destination: Option<&'a str>,
    task: Option<&'a str>,
    state: Option<&'a str>,
    db_system: Option<&'a str>,
    old_db_system: Option<&'a str>,
    db_namespace: Option<&'a str>,
    old_db_name: Option<&'a str>,
    address: Option<&'a str>,
}

impl<'a> Conventions<'a> {
    /// Returns the field for the attribute `key`.
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        Some(match key {
            "http.request.method" => &mut self.method,
            "http.route" => &mut self.route,
            "messaging.operation.type" => &mut self.operation,
            "messaging.system" => &mut self.messaging_system,
            "messaging.destination.name" => &mut self.destination,
            "celery.task_name" => &mut self.task,
            "celery.state" => &mut self.state,
            "db.system.name" => &mut self.db_system,
            "db.system" => &mut self.old_db_system,
            "db.namespace" => &mut self.db_namespace,
            "db.name" => &mut self.old_db_name,
            "server.address" => &mut self.address,
            _ => return None,
        })
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
            Self::Call { address } => Role::Call {
                address: address.as_ref().map(&to),
            },
        }
    }

    /// Returns the names that are set.
    fn names(&self) -> impl Iterator<Item = &S> {
        let names = match self {
            Self::Internal => [None; 4],
            Self::Request { method, route } => [method.as_ref(), route.as_ref(), None, None],
            Self::Task {
                task,
                state,
                queue: from,
            } => {
                let [system, destination] = from.names();
                [task.as_ref(), state.as_ref(), system, destination]
            }
            Self::Send(with) | Self::Receive(with) => {
                let [system, destination] = with.names();
                [system, destination, None, None]
            }
            Self::Database { system, namespace } => [Some(system), namespace.as_ref(), None, None],
            Self::Call { address } => [address.as_ref(), None, None, None],
        };
        names.into_iter().flatten()
    }
}
