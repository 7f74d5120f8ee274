//! Where telemetry looks on. Client, worker and broker tell an [`Observer`] what they do; the default one does
//! nothing, and `celeriac::otel` (feature `telemetry`) makes spans and metrics of it.

use std::{any::Any, fmt, future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use serde_json::{Map, Value};

use crate::{broker::BrokerError, task::TaskOutcome};

/// Hears of sends, runs and broker commands.
pub trait Observer: Send + Sync + 'static {
    /// A task is about to be sent. May add headers (trace context); what is there already is the caller's own context
    /// and the parent of the send.
    fn send(&self, send: &SendInfo<'_>, headers: &mut Map<String, Value>) -> Box<dyn SendSpan>;

    /// A task is about to be run. `headers` carry the sender's trace context.
    fn run<'a>(&'a self, task: &TaskInfo<'a>, headers: &Map<String, Value>) -> Box<dyn RunSpan + 'a>;

    /// Headers that carry the trace context in force. Asked within a run, for the tasks that follow from it.
    fn context(&self) -> Map<String, Value>;

    /// The span in force, for what is done later on its behalf.
    fn origin(&self) -> Origin {
        Origin::default()
    }

    /// Stands for all of these, for work that is done at once for them: the commands sent in it belong to the first and are
    /// linked to the others.
    fn on_behalf_of(&self, _: &[Origin]) -> Origin {
        Origin::default()
    }

    /// Does a piece of work (one poll of a future) for `origin`; calls `work` once.
    fn during(&self, _: &Origin, work: &mut dyn FnMut()) {
        work();
    }

    /// A command is about to go to the broker's server. All of them are reported, also those that no task asked for.
    fn command(&self, command: Command) -> Box<dyn CommandSpan>;

    /// A message went to the dead-letter list.
    fn buried(&self, queue: &str);
}

/// A send in progress.
pub trait SendSpan: Send + Sync {
    /// Does a piece of the conversation with the broker (one poll of a future), calling `work` once; commands reported
    /// meanwhile belong to this send.
    fn during(&self, work: &mut dyn FnMut());

    /// The send itself, for what is sent together with others.
    fn origin(&self) -> Origin {
        Origin::default()
    }

    /// The broker has answered. A send that is dropped before was called off.
    fn finish(self: Box<Self>, result: Result<(), &BrokerError>);
}

/// A run in progress. One that is dropped before it has ended was called off.
pub trait RunSpan: Send + Sync {
    /// Does a piece of the run (one poll of its future), calling `work` once.
    fn during(&self, work: &mut dyn FnMut());

    /// The task has ended.
    fn finish(self: Box<Self>, outcome: &TaskOutcome);
}

/// `work`, of which each piece is done as `during` does it.
pub(crate) fn observed<T>(
    mut work: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    during: impl Fn(&mut dyn FnMut()),
) -> impl Future<Output = T> {
    poll_fn(move |context| {
        let mut polled = Poll::Pending;
        during(&mut || polled = work.as_mut().poll(context));
        polled
    })
}

/// A span, as its observer remembers it: something that only that one understands, or nothing.
#[derive(Clone, Default)]
pub struct Origin(Remembered);

#[derive(Clone, Default)]
enum Remembered {
    #[default]
    Nothing,
    Something(Arc<dyn Any + Send + Sync>),
    /// What [`crate::otel`] remembers, in no memory of its own: every task has some.
    #[cfg(feature = "telemetry")]
    Context(telemetry::Context),
}

impl Origin {
    /// What an observer remembers.
    pub fn new(remembered: impl Any + Send + Sync) -> Self {
        Self(Remembered::Something(Arc::new(remembered)))
    }

    /// What was remembered, if it is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        match &self.0 {
            Remembered::Something(remembered) => remembered.downcast_ref(),
            _ => None,
        }
    }

    #[cfg(feature = "telemetry")]
    pub(crate) fn of_context(context: telemetry::Context) -> Self {
        Self(Remembered::Context(context))
    }

    #[cfg(feature = "telemetry")]
    pub(crate) fn context(&self) -> Option<&telemetry::Context> {
        match &self.0 {
            Remembered::Context(context) => Some(context),
            _ => None,
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").finish_non_exhaustive()
    }
}

/// A command in progress.
pub trait CommandSpan: Send {
    /// The server has answered.
    fn finish(self: Box<Self>, result: Result<(), CommandFailure<'_>>);
}

/// Why a command failed.
#[derive(Debug, Clone, Copy)]
pub struct CommandFailure<'a> {
    /// The error as its caller gets it.
    pub error: &'a BrokerError,
    /// What the server calls it, as `WRONGTYPE`; nothing when the server did not answer.
    pub code: Option<&'a str>,
}

/// A task that is being sent.
#[derive(Debug, Clone, Copy)]
pub struct SendInfo<'a> {
    /// Its registered name.
    pub task: &'a str,
    /// Its id.
    pub id: &'a str,
    /// The queue it goes to.
    pub queue: &'a str,
}

/// A task that is being run.
#[derive(Debug, Clone, Copy)]
pub struct TaskInfo<'a> {
    /// Its registered name.
    pub task: &'a str,
    /// Its id.
    pub id: &'a str,
    /// The queue it came from.
    pub queue: &'a str,
    /// How often it was tried before.
    pub retries: u32,
    /// The worker that runs it.
    pub hostname: &'a str,
    /// Whether the worker knows the task. The name of one it does not know may be anything.
    pub registered: bool,
}

/// A command to the broker's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Its name, `LPUSH`.
    pub name: &'static str,
    /// Its text with `?` in the place of every argument.
    pub text: &'static str,
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn send(&self, _: &SendInfo<'_>, _: &mut Map<String, Value>) -> Box<dyn SendSpan> {
        Box::new(Self)
    }

    fn run<'a>(&'a self, _: &TaskInfo<'a>, _: &Map<String, Value>) -> Box<dyn RunSpan + 'a> {
        Box::new(Self)
    }

    fn context(&self) -> Map<String, Value> {
        Map::new()
    }

    fn command(&self, _: Command) -> Box<dyn CommandSpan> {
        Box::new(Self)
    }

    fn buried(&self, _: &str) {}
}

impl RunSpan for Unobserved {
    fn during(&self, work: &mut dyn FnMut()) {
        work();
    }

    fn finish(self: Box<Self>, _: &TaskOutcome) {}
}

impl SendSpan for Unobserved {
    fn during(&self, work: &mut dyn FnMut()) {
        work();
    }

    fn finish(self: Box<Self>, _: Result<(), &BrokerError>) {}
}

impl CommandSpan for Unobserved {
    fn finish(self: Box<Self>, _: Result<(), CommandFailure<'_>>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_its_observer_remembered_and_nothing_else() {
        let origin = Origin::new(7_u32);
        assert_eq!(origin.clone().get::<u32>(), Some(&7));
        assert_eq!(origin.get::<u64>(), None);
        assert_eq!(Origin::default().get::<u32>(), None);
    }
}
