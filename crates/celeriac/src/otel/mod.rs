//! [`Observer`] with OpenTelemetry, through the crate `telemetry`: `celery.send_task` and `celery.run` in one trace
//! across the queue, their metrics, and Redis commands as client spans wherever a span is in force. Trace
//! context travels as top-level message headers, where Python's Celery instrumentation looks for it.

mod queues;

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value};
use telemetry::{
    Context, Failure, Messaging, Outcome, Processed, Processing, RedisServer, Sending, TaskMessage,
    names::metric, opentelemetry::trace::TraceContextExt as _,
};

pub use self::queues::QueueWatch;
use crate::{
    broker::{Broker, BrokerError},
    observer::{
        Command, CommandFailure, CommandSpan, NoopObserver, Observer, RunSpan, SendInfo, SendSpan,
        SpanHandle, TaskInfo,
    },
    redis::RedisConfig,
    task::TaskOutcome,
};

/// The task name of metrics and spans where the worker does not know the task: names from outside are unbounded.
const UNREGISTERED: &str = "unregistered";

/// Makes spans and metrics.
#[derive(Debug, Clone)]
pub struct OtelObserver {
    messaging: Messaging,
}

impl OtelObserver {
    /// An observer of the process whose worker has this name.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            messaging: Messaging::new(hostname),
        }
    }

    /// Names the server in command spans.
    #[must_use]
    pub fn with_redis(self, config: &RedisConfig) -> Self {
        match config.server() {
            Ok((Some((address, port)), database)) => Self {
                messaging: self.messaging.with_redis(RedisServer {
                    address,
                    port,
                    database,
                }),
            },
            _ => self,
        }
    }

    /// Reports, looking every ten seconds until the returned watch is dropped: how many messages wait in these queues,
    /// how long the oldest one waits, how many are reserved, and how many dead letters there are. While the broker cannot
    /// be reached, nothing is reported.
    #[must_use]
    pub fn watch_queues(&self, broker: Arc<dyn Broker>, queues: Vec<String>) -> QueueWatch {
        queues::watch(&self.messaging, broker, queues)
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
        let sending = self.messaging.send(&message, parent);
        for (name, value) in sending.headers() {
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
        Box::new(Run(self.messaging.start_processing(
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
        // Of one it is that one.
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
        // A command of nobody's would be a trace of its own: polling, leases, looking after the dead.
        if Context::map_current(|context| context.span().span_context().is_valid()) {
            Box::new(Commanding(self.messaging.command(command.name, command.text)))
        } else {
            Box::new(NoopObserver)
        }
    }

    fn buried(&self, queue: &str) {
        telemetry::counter(
            metric::CELERIAC_MESSAGES_BURIED,
            "{message}",
            "Messages that went to the dead-letter list.",
        )
        .add(
            1,
            &[telemetry::KeyValue::new(
                "messaging.destination.name",
                queue.to_owned(),
            )],
        );
    }
}

struct Send(Sending);

impl SendSpan for Send {
    fn in_scope(&self, work: &mut dyn FnMut()) {
        within(self.0.context(), work);
    }

    fn handle(&self) -> SpanHandle {
        origin(self.0.context())
    }

    fn finish(self: Box<Self>, result: Result<(), &BrokerError>) {
        self.0.finish(result.map_err(|error| error as &dyn Failure));
    }
}

struct Run<'a>(Processing<'a>);

impl RunSpan for Run<'_> {
    fn in_scope(&self, work: &mut dyn FnMut()) {
        within(self.0.context(), work);
    }

    fn finish(self: Box<Self>, outcome: &TaskOutcome) {
        self.0.finish(processed(outcome));
    }
}

struct Commanding(telemetry::Command);

impl CommandSpan for Commanding {
    fn finish(self: Box<Self>, result: Result<(), CommandFailure<'_>>) {
        match result {
            Ok(()) => self.0.finish(Ok(())),
            Err(CommandFailure { error, code: None }) => self.0.finish(Err(error)),
            Err(CommandFailure {
                error,
                code: Some(code),
            }) => self.0.refused(code.to_owned(), error),
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

/// Does `work` with `context` in force.
fn within(context: &Context, work: &mut dyn FnMut()) {
    let _attached = context.clone().attach();
    work();
}

/// What is not sampled need not be remembered.
fn origin(context: &Context) -> SpanHandle {
    if context.span().span_context().is_sampled() {
        SpanHandle::of_context(context.clone())
    } else {
        SpanHandle::default()
    }
}

/// The context that a message's headers carry; an empty one when they carry none.
fn carried_context(headers: &Map<String, Value>) -> Context {
    let texts = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    telemetry::extract_context(texts)
}

fn processed(outcome: &TaskOutcome) -> Processed {
    Processed {
        outcome: match outcome {
            TaskOutcome::Success(_) => Outcome::Success,
            TaskOutcome::Retry { .. } => Outcome::Retry,
            TaskOutcome::Failure(_) | TaskOutcome::Rejected(..) => Outcome::Failure,
            TaskOutcome::Revoked(_) => Outcome::Revoked,
        },
        exception: outcome
            .exception()
            .map(|exception| (Cow::Owned(exception.type_name.clone()), exception.message.clone())),
    }
}
