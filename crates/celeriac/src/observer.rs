//! Where telemetry looks on. Client, worker and broker tell an [`Observer`] what they do; the default one does
//! nothing, and `celeriac::otel` (feature `telemetry`) makes spans and metrics of it.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::{broker::BrokerError, task::TaskOutcome};

/// Hears of sends, runs and broker commands.
pub trait Observer: Send + Sync + 'static {
    /// A task is about to be sent. May add headers (trace context); what is there already is the caller's own context
    /// and the parent of the send.
    fn send(&self, send: &SendInfo<'_>, headers: &mut Map<String, Value>) -> Box<dyn SendSpan>;

    /// A task is about to be run: `work` is the run, to be awaited exactly once. `headers` carry the sender's trace
    /// context.
    fn process<'a>(
        &self,
        task: &TaskInfo<'_>,
        headers: &Map<String, Value>,
        work: BoxFuture<'a, TaskOutcome>,
    ) -> BoxFuture<'a, TaskOutcome>;

    /// Headers that carry the trace context in force. Asked within a run, for the tasks that follow from it.
    fn context(&self) -> Map<String, Value>;

    /// A command is about to go to the broker's server. All of them are reported, also those that no task asked for.
    fn command(&self, command: Command) -> Box<dyn CommandSpan>;

    /// A message went to the dead-letter list.
    fn buried(&self, queue: &str);
}

/// A send in progress.
pub trait SendSpan: Send {
    /// The conversation with the broker; commands reported meanwhile belong to this send.
    fn during<'a>(
        &self,
        work: BoxFuture<'a, Result<(), BrokerError>>,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// The broker has answered.
    fn finish(self: Box<Self>, result: Result<(), &BrokerError>);
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

    fn process<'a>(
        &self,
        _: &TaskInfo<'_>,
        _: &Map<String, Value>,
        work: BoxFuture<'a, TaskOutcome>,
    ) -> BoxFuture<'a, TaskOutcome> {
        work
    }

    fn context(&self) -> Map<String, Value> {
        Map::new()
    }

    fn command(&self, _: Command) -> Box<dyn CommandSpan> {
        Box::new(Self)
    }

    fn buried(&self, _: &str) {}
}

impl SendSpan for Unobserved {
    fn during<'a>(
        &self,
        work: BoxFuture<'a, Result<(), BrokerError>>,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        work
    }

    fn finish(self: Box<Self>, _: Result<(), &BrokerError>) {}
}

impl CommandSpan for Unobserved {
    fn finish(self: Box<Self>, _: Result<(), CommandFailure<'_>>) {}
}
