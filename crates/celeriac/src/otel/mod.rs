//! An [`Observer`] that records OpenTelemetry data through the crate `otel-service`: the spans
//! `celery.send_task` and `celery.run` in one trace across the queue, their metrics, and client spans for
//! Redis commands that run within another span. The trace context is propagated in top-level message headers,
//! where Python's Celery instrumentation reads it.

mod instruments;
mod names;
mod queues;
mod spans;

use std::sync::Arc;

use serde_json::{Map, Value};
use telemetry::{
    Context, KeyValue, Redis, RedisCommand, RedisServer, instrumentation::inject_context_of,
    opentelemetry::trace::TraceContextExt as _,
};

pub use self::queues::QueueWatch;
use self::{
    instruments::{Node, instruments},
    spans::{Processing, Sending, handle, within},
};
use crate::{
    broker::Broker,
    observer::{
        Command, CommandFailure, CommandSpan, NoopObserver, Observer, RunSpan, SendInfo, SendSpan,
        SpanHandle, TaskInfo,
    },
    redis::RedisConfig,
};

/// Task name in metrics and spans for tasks that are not registered, whose names are unbounded.
const UNREGISTERED: &str = "unregistered";

/// Observer that records spans and metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct OtelObserver {
    redis: Redis,
    node: Arc<Node>,
}

impl OtelObserver {
    /// Creates an observer for the worker named `hostname`.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            redis: Redis::new(),
            node: Arc::new(Node {
                hostname: hostname.into().into(),
                ..Node::default()
            }),
        }
    }

    /// Adds the address of the Redis server to the spans and metrics of messages and Redis commands.
    #[must_use]
    pub fn with_redis(self, config: &RedisConfig) -> Self {
        match config.server() {
            Ok((Some((address, port)), database)) => Self {
                node: Arc::new(Node {
                    hostname: Arc::clone(&self.node.hostname),
                    server: Arc::new([
                        KeyValue::new("server.address", address.clone()),
                        KeyValue::new("server.port", i64::from(port)),
                    ]),
                    ..Node::default()
                }),
                redis: Redis::for_server(RedisServer {
                    address,
                    port,
                    database,
                }),
            },
            _ => self,
        }
    }

    /// Reports gauges of the given queues (waiting messages, the age of the oldest waiting message, and
    /// unacknowledged messages) and of the dead-letter list.
    ///
    /// The queues are read every ten seconds until the returned watch is dropped; nothing is reported while
    /// the broker is unreachable.
    #[must_use]
    pub fn watch_queues(&self, broker: Arc<dyn Broker>, queues: Vec<String>) -> QueueWatch {
        queues::watch(broker, queues, &self.node.server)
    }
}

impl Observer for OtelObserver {
    fn send(&self, send: &SendInfo<'_>, headers: &mut Map<String, Value>) -> Box<dyn SendSpan> {
        let sending = Sending::start(send, &self.node, &carried_context(headers));
        headers.extend(as_headers(inject_context_of(&sending.cx)));
        Box::new(sending)
    }

    fn run<'a>(&'a self, task: &TaskInfo<'a>, headers: &Map<String, Value>) -> Box<dyn RunSpan + 'a> {
        let mut task = *task;
        if !task.registered {
            task.task = UNREGISTERED;
        }
        let parent = carried_context(headers);
        Box::new(Processing::start(task, &self.node, &parent))
    }

    fn context(&self) -> Map<String, Value> {
        as_headers(telemetry::inject_context()).collect()
    }

    fn current_span(&self) -> SpanHandle {
        Context::map_current(handle)
    }

    fn batch_span(&self, spans: &[SpanHandle]) -> SpanHandle {
        if let [only] = spans {
            return only.clone();
        }
        let contexts = spans.iter().filter_map(SpanHandle::context);
        telemetry::on_behalf_of(contexts).map_or_else(SpanHandle::default, SpanHandle::of_context)
    }

    fn in_scope(&self, span: &SpanHandle, work: &mut dyn FnMut()) {
        match span.context() {
            Some(context) => within(context, work),
            None => work(),
        }
    }

    fn command(&self, command: Command<'_>) -> Box<dyn CommandSpan> {
        // Without a current span (polling, leases, recovery), the command would form a separate trace.
        if Context::map_current(|context| context.span().span_context().is_valid()) {
            let Command { name, text, size, .. } = command;
            Box::new(match command.script {
                Some(script) => self.redis.procedure(name, text, script),
                None => self.redis.batch(name, text, size),
            })
        } else {
            Box::new(NoopObserver)
        }
    }

    fn buried(&self, queue: &str) {
        if let Some(instruments) = instruments() {
            instruments.buried(queue, &self.node.server);
        }
    }
}

impl CommandSpan for RedisCommand {
    fn finish(self: Box<Self>, result: Result<(), CommandFailure<'_>>) {
        match result {
            Ok(()) => (*self).finish(Ok(())),
            Err(CommandFailure { error, code: None }) => (*self).finish(Err(error)),
            Err(CommandFailure {
                error,
                code: Some(code),
            }) => self.rejected(code.to_owned(), error),
        }
    }
}

/// Returns the context in the headers of a message, or an empty context.
fn carried_context(headers: &Map<String, Value>) -> Context {
    let texts = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    telemetry::extract_context(texts)
}

fn as_headers(context: Vec<(String, String)>) -> impl Iterator<Item = (String, Value)> {
    context.into_iter().map(|(name, value)| (name, value.into()))
}
