//! Instrumentation port: [`Client`](crate::Client), [`Worker`](crate::Worker) and the brokers report sends,
//! runs and server commands to an [`Observer`]. The default observer does nothing; `celeriac::otel` (feature
//! `telemetry`) records OpenTelemetry spans and metrics.

use std::{any::Any, fmt, future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use serde_json::{Map, Value};

use crate::{broker::BrokerError, message::Message, task::TaskOutcome};

/// Receives reports of sends, runs and server commands.
///
/// Users can implement this trait and the traits of its spans. By default, every method does nothing. The
/// `*Info` values that the methods receive have constructors for tests.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Called before a task is sent.
    ///
    /// The observer may add trace context to `headers`. If the caller has already set trace context there, it
    /// is the parent of the send.
    fn send(&self, _send: &SendInfo<'_>, _headers: &mut Map<String, Value>) -> Box<dyn SendSpan> {
        Box::new(NoopObserver)
    }

    /// Called before a task runs. `headers` carry the sender's trace context.
    fn run<'a>(&'a self, _task: &TaskInfo<'a>, _headers: &Map<String, Value>) -> Box<dyn RunSpan + 'a> {
        Box::new(NoopObserver)
    }

    /// Returns headers with the current trace context. Called within a run, for its follow-up tasks.
    fn context(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Returns the current span, for work that is done later on its behalf.
    fn current_span(&self) -> SpanHandle {
        SpanHandle::default()
    }

    /// Returns one handle for work that is done for several spans together: commands sent within it belong to
    /// the first span and are linked to the others.
    fn batch_span(&self, _spans: &[SpanHandle]) -> SpanHandle {
        SpanHandle::default()
    }

    /// Calls `work` once, with `span` as the current span. `work` is one poll of a future.
    fn in_scope(&self, _span: &SpanHandle, work: &mut dyn FnMut()) {
        work();
    }

    /// Called before a command is sent to the broker's server, whether or not on behalf of a task.
    fn command(&self, _command: Command<'_>) -> Box<dyn CommandSpan> {
        Box::new(NoopObserver)
    }

    /// Called after a message from `queue` was moved to the dead-letter list.
    fn buried(&self, _queue: &str) {}
}

/// Span of a send. Dropping it before it is finished means that the send was cancelled.
pub trait SendSpan: Send + Sync {
    /// Calls `work` once, with this span as the current span. `work` is one poll of a future.
    fn in_scope(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Returns a handle to this span, for messages that are sent together.
    fn handle(&self) -> SpanHandle {
        SpanHandle::default()
    }

    /// Ends the span with the broker's response.
    fn finish(self: Box<Self>, _result: Result<(), &BrokerError>) {}
}

/// Span of a run. Dropping it before it is finished means that the run was cancelled.
pub trait RunSpan: Send + Sync {
    /// Calls `work` once, with this span as the current span. `work` is one poll of a future.
    fn in_scope(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Ends the span with the task's outcome.
    fn finish(self: Box<Self>, _outcome: &TaskOutcome) {}
}

/// Span of a command.
pub trait CommandSpan: Send {
    /// Ends the span with the server's response.
    fn finish(self: Box<Self>, _result: Result<(), CommandFailure<'_>>) {}
}

/// Polls `work` within `in_scope`.
pub(crate) fn observed<T>(
    mut work: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    in_scope: impl Fn(&mut dyn FnMut()),
) -> impl Future<Output = T> {
    poll_fn(move |context| {
        let mut polled = Poll::Pending;
        in_scope(&mut || polled = work.as_mut().poll(context));
        polled
    })
}

impl dyn Observer {
    /// Calls [`Observer::send`] for a message; the observer may add to its headers.
    pub(crate) fn sending(&self, message: &mut Message) -> Box<dyn SendSpan> {
        let headers = &mut message.headers;
        let queue = &message.properties.delivery_info.routing_key;
        self.send(
            &SendInfo::new(&headers.task, &headers.id, queue),
            &mut headers.extra,
        )
    }
}

/// Handle to a span, opaque to everything but the observer that created it. The default handle refers to no
/// span.
#[derive(Debug, Clone, Default)]
pub struct SpanHandle(Handle);

#[derive(Debug, Clone, Default)]
enum Handle {
    #[default]
    None,
    Any(Arc<dyn Any + Send + Sync>),
    /// Handle of [`crate::otel`], stored inline because every task has one: this saves an allocation.
    #[cfg(feature = "telemetry")]
    Context(telemetry::Context),
}

impl SpanHandle {
    /// Creates a handle from the observer's own representation of a span.
    pub fn new(span: impl Any + Send + Sync) -> Self {
        Self(Handle::Any(Arc::new(span)))
    }

    /// Returns the observer's representation of the span if it is of type `T`.
    #[must_use]
    pub fn downcast_ref<T: Any>(&self) -> Option<&T> {
        match &self.0 {
            Handle::Any(span) => span.downcast_ref(),
            _ => None,
        }
    }

    #[cfg(feature = "telemetry")]
    pub(crate) fn of_context(context: telemetry::Context) -> Self {
        Self(Handle::Context(context))
    }

    #[cfg(feature = "telemetry")]
    pub(crate) fn context(&self) -> Option<&telemetry::Context> {
        match &self.0 {
            Handle::Context(context) => Some(context),
            _ => None,
        }
    }
}

/// Task being sent.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SendInfo<'a> {
    /// Registered name.
    pub task: &'a str,
    /// Task id.
    pub id: &'a str,
    /// Destination queue.
    pub queue: &'a str,
}

impl<'a> SendInfo<'a> {
    /// Describes the send of a task.
    #[must_use]
    pub fn new(task: &'a str, id: &'a str, queue: &'a str) -> Self {
        Self { task, id, queue }
    }
}

/// Task being run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TaskInfo<'a> {
    /// Registered name.
    pub task: &'a str,
    /// Task id.
    pub id: &'a str,
    /// Queue that the message was received from.
    pub queue: &'a str,
    /// Number of earlier attempts.
    pub retries: u32,
    /// Name of the worker.
    pub hostname: &'a str,
    /// Whether the task is registered with the worker. The names of other tasks are unbounded.
    pub registered: bool,
}

impl<'a> TaskInfo<'a> {
    /// Describes the first attempt at a registered task, by a worker with an empty name. The fields can be
    /// changed.
    #[must_use]
    pub fn new(task: &'a str, id: &'a str, queue: &'a str) -> Self {
        Self {
            task,
            id,
            queue,
            retries: 0,
            hostname: "",
            registered: true,
        }
    }
}

/// Command to the broker's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command<'a> {
    /// Name, such as `LPUSH`.
    pub name: &'static str,
    /// Text with `?` in place of every argument.
    pub text: &'static str,
    /// Number of commands in a transaction or pipeline, otherwise 1.
    pub size: usize,
    /// SHA-1 digest of the script that the command runs.
    pub script: Option<&'a str>,
}

impl Command<'_> {
    /// Describes a single command that runs no script. The fields can be changed.
    #[must_use]
    pub const fn new(name: &'static str, text: &'static str) -> Self {
        Self {
            name,
            text,
            size: 1,
            script: None,
        }
    }
}

/// Failure of a command.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CommandFailure<'a> {
    /// Error that the caller of the command receives.
    pub error: &'a BrokerError,
    /// Error code from the server, such as `WRONGTYPE`; `None` if the server did not respond.
    pub code: Option<&'a str>,
}

impl<'a> CommandFailure<'a> {
    /// Describes the failure of a command.
    #[must_use]
    pub fn new(error: &'a BrokerError, code: Option<&'a str>) -> Self {
        Self { error, code }
    }
}

/// Observer that ignores every report.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopObserver;

impl Observer for NoopObserver {}

impl SendSpan for NoopObserver {}

impl RunSpan for NoopObserver {}

impl CommandSpan for NoopObserver {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_downcast_only_to_the_type_of_its_value() {
        let handle = SpanHandle::new(7_u32);
        assert_eq!(handle.clone().downcast_ref::<u32>(), Some(&7));
        assert_eq!(handle.downcast_ref::<u64>(), None);
        assert_eq!(SpanHandle::default().downcast_ref::<u32>(), None);
    }
}
