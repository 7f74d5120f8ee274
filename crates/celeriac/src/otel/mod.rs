//! An [`Observer`] that records OpenTelemetry through the crate `otel-service`: the spans `celery.send_task`
//! and `celery.run` in one trace across the queue, their metrics, and client spans of Redis commands within
//! other spans. The trace context is propagated in top-level message headers, where the Celery
//! instrumentation of Python reads it.

mod cache;
mod instruments;
mod message;
mod names;
mod queues;
mod spans;
mod tasks;

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value};
use telemetry::{
    Context, Failure, Redis, RedisCommand, RedisServer, instrumentation::inject_context_of,
    opentelemetry::trace::TraceContextExt as _,
};

pub use self::queues::QueueWatch;
use self::{
    cache::TaskCache,
    instruments::instruments,
    message::TaskMessage,
    spans::{Processing, Sending},
};
use crate::{
    broker::{Broker, BrokerError},
    observer::{
        Command, CommandFailure, CommandSpan, NoopObserver, Observer, RunSpan, SendInfo, SendSpan,
        SpanHandle, TaskInfo,
    },
    redis::RedisConfig,
    task::TaskOutcome,
};

/// Task name in metrics and spans for tasks that are not registered, whose names are unbounded.
const UNREGISTERED: &str = "unregistered";

/// Observer that records spans and metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct OtelObserver {
    hostname: Arc<str>,
    redis: Redis,
    cache: Arc<TaskCache>,
}

impl OtelObserver {
    /// Creates an observer for the worker named `hostname`.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into().into(),
            redis: Redis::new(),
            cache: Arc::default(),
        }
    }

    /// Sets the Redis server whose address the spans of commands contain.
    #[must_use]
    pub fn with_redis(self, config: &RedisConfig) -> Self {
        match config.server() {
            Ok((Some((address, port)), database)) => Self {
                redis: Redis::for_server(RedisServer {
                    address,
                    port,
                    database,
                }),
                ..self
            },
            _ => self,
        }
    }

    /// Reports gauges of the given queues: waiting messages, the age of the oldest one, reserved messages,
    /// and dead letters.
    ///
    /// The queues are read every ten seconds until the returned watch is dropped; nothing is reported while
    /// the broker is unreachable.
    #[must_use]
    pub fn watch_queues(&self, broker: Arc<dyn Broker>, queues: Vec<String>) -> QueueWatch {
        queues::watch(broker, queues)
    }
}

impl Observer for OtelObserver {
    fn send(&self, send: &SendInfo<'_>, headers: &mut Map<String, Value>) -> Box<dyn SendSpan> {
        let message = TaskMessage {
            task: send.task,
            id: send.id,
            queue: send.queue,
        };
        let carried = carried_context(headers);
        let parent = carried.span().span_context().is_valid().then_some(&carried);
        let sending = tasks::send(&message, parent);
        for (name, value) in inject_context_of(&sending.cx) {
            headers.insert(name, Value::String(value));
        }
        Box::new(Send(sending))
    }

    fn run<'a>(&'a self, task: &TaskInfo<'a>, headers: &Map<String, Value>) -> Box<dyn RunSpan + 'a> {
        let message = TaskMessage {
            task: if task.registered { task.task } else { UNREGISTERED },
            id: task.id,
            queue: task.queue,
        };
        let parent = carried_context(headers);
        Box::new(Run(tasks::run(
            &self.hostname,
            &self.cache,
            message,
            task.retries,
            &parent,
        )))
    }

    fn context(&self) -> Map<String, Value> {
        telemetry::inject_context()
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect()
    }

    fn current_span(&self) -> SpanHandle {
        Context::map_current(origin)
    }

    fn batch_span(&self, origins: &[SpanHandle]) -> SpanHandle {
        // A single origin stands for itself.
        if let [only] = origins {
            return only.clone();
        }
        let contexts = origins.iter().filter_map(SpanHandle::context);
        telemetry::on_behalf_of(contexts).map_or_else(SpanHandle::default, SpanHandle::of_context)
    }

    fn in_scope(&self, origin: &SpanHandle, work: &mut dyn FnMut()) {
        match origin.context() {
            Some(context) => within(context, work),
            None => work(),
        }
    }

    fn command(&self, command: Command) -> Box<dyn CommandSpan> {
        // Without a current span (polling, leases, recovery), the command would form a separate trace.
        if Context::map_current(|context| context.span().span_context().is_valid()) {
            Box::new(RedisSpan(self.redis.command(command.name, command.text)))
        } else {
            Box::new(NoopObserver)
        }
    }

    fn buried(&self, queue: &str) {
        if let Some(instruments) = instruments() {
            instruments.buried(queue);
        }
    }
}

struct Send(Sending);

impl SendSpan for Send {
    fn in_scope(&self, work: &mut dyn FnMut()) {
        within(&self.0.cx, work);
    }

    fn handle(&self) -> SpanHandle {
        origin(&self.0.cx)
    }

    fn finish(self: Box<Self>, result: Result<(), &BrokerError>) {
        self.0.finish(result.map_err(|error| error as &dyn Failure));
    }
}

struct Run<'a>(Processing<'a>);

impl RunSpan for Run<'_> {
    fn in_scope(&self, work: &mut dyn FnMut()) {
        within(&self.0.cx, work);
    }

    fn finish(self: Box<Self>, outcome: &TaskOutcome) {
        self.0.finish(outcome);
    }
}

struct RedisSpan(RedisCommand);

impl CommandSpan for RedisSpan {
    fn finish(self: Box<Self>, result: Result<(), CommandFailure<'_>>) {
        match result {
            Ok(()) => self.0.finish(Ok(())),
            Err(CommandFailure { error, code: None }) => self.0.finish(Err(error)),
            Err(CommandFailure {
                error,
                code: Some(code),
            }) => self.0.rejected(code.to_owned(), error),
        }
    }
}

impl Failure for BrokerError {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(self.kind()))
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// Runs `work` with `context` as the current context.
fn within(context: &Context, work: &mut dyn FnMut()) {
    let _attached = context.clone().attach();
    work();
}

/// Returns a handle to the span of `context`, or an empty handle if the span is not sampled.
fn origin(context: &Context) -> SpanHandle {
    if context.span().span_context().is_sampled() {
        SpanHandle::of_context(context.clone())
    } else {
        SpanHandle::default()
    }
}

/// Returns the context in the headers of a message, or an empty context.
fn carried_context(headers: &Map<String, Value>) -> Context {
    let texts = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    telemetry::extract_context(texts)
}
