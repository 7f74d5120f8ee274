//! What spans have in common that do the same: where they come from, their name, and what that is: a request, a task, a
//! call to a database. Worked out once when a span comes, so that overview and map need not decode spans.

use std::{hash::Hash, sync::Arc};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::{
    intern::{Footprint, Interner, Novelty, Shared},
    memory,
    origin::{Origin, text_of},
};

/// A kind of span, among those of its service.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) origin: Shared,
    pub(crate) name: Arc<str>,
    pub(crate) kind: SpanKind,
    pub(crate) role: Role<Arc<str>>,
}

/// What a span does, with the names the conventions give it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Role<S> {
    /// Work of its own.
    Internal,
    /// Answers a caller.
    Request { method: Option<S>, route: Option<S> },
    /// Runs a task taken from a queue.
    Task {
        task: Option<S>,
        state: Option<S>,
        queue: Queue<S>,
    },
    /// Puts a message into a queue.
    Send(Queue<S>),
    /// Takes a message out of a queue without working on it.
    Receive(Queue<S>),
    /// Asks a database.
    Database { system: S, namespace: Option<S> },
    /// Calls another service.
    Call { address: Option<S> },
}

/// A queue, as `messaging.*` names it.
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

impl Shape {
    /// The shape of `span`, which takes part in keeping `origin`.
    pub(crate) fn intern(
        shapes: &mut Interner<Self>,
        origins: &mut Interner<Origin>,
        origin: Shared,
        span: &Span,
    ) -> Shared {
        let name = span.name.as_str();
        let kind = span.kind();
        let role = Role::of(span);
        let same = |shape: &Self| {
            shape.origin == origin
                && &*shape.name == name
                && shape.kind == kind
                && shape.role.as_deref() == role
        };
        let make = || Self {
            origin,
            name: name.into(),
            kind,
            role: role.owned(),
        };
        let (shared, novelty) = shapes.intern(&(origin, name, kind, &role), same, make);
        if novelty == Novelty::New {
            origins.retain(origin);
        }
        shared
    }

    /// One span of this shape less.
    pub(crate) fn release(shapes: &mut Interner<Self>, origins: &mut Interner<Origin>, shape: Shared) {
        if let Some(last) = shapes.release(shape) {
            origins.release(last.origin);
        }
    }

    /// How requests of this shape are called: method and route, or the span's name.
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

impl Footprint for Shape {
    fn heap_bytes(&self) -> usize {
        let role: usize = self.role.names().map(|name| memory::shared(name.len())).sum();
        memory::shared(self.name.len()) + role
    }
}

impl<'a> Role<&'a str> {
    fn of(span: &'a Span) -> Self {
        let mut found = Conventions::default();
        for attribute in &span.attributes {
            if let Some(place) = found.place(&attribute.key) {
                *place = text_of(attribute);
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

    fn owned(&self) -> Role<Arc<str>> {
        self.map_ref(|text| Arc::from(*text))
    }
}

impl Role<Arc<str>> {
    fn as_deref(&self) -> Role<&str> {
        self.map_ref(|text| &**text)
    }
}

/// The attributes by which spans are told apart (OpenTelemetry semantic conventions 1.3x, and the names before those).
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
    fn place(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
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

    /// Every name it has.
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
