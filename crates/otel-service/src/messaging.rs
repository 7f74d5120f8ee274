//! Spans and metrics of a task queue: `celery.send_task` in the sender, `celery.run` in the worker, and client spans for
//! the commands of the broker. Independent of the wire format: callers pass names, ids and headers.

mod known;
mod measures;
mod pending;

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::SpanKind;
use opentelemetry::{Context, KeyValue, StringValue};

use crate::context;
use crate::db;
use crate::export::Attributes;
use crate::metrics;
use crate::names::{attribute, metric, span};
use crate::recording::Beginning;
use crate::stopwatch::Stopwatch;
use known::KnownTasks;
use measures::instruments;
use pending::Redis;
pub use pending::{Command, Processing, Sending};

const SYSTEM: &str = "celery";

/// A task message that is sent or processed.
#[derive(Clone, Copy, Debug)]
pub struct TaskMessage<'a> {
    /// Name of the task: `celery.task_name`, and `name` in metrics. Must have a bounded number of values.
    pub task: &'a str,
    /// `messaging.message.id`.
    pub id: &'a str,
    /// `messaging.destination.name`.
    pub queue: &'a str,
}

/// Final state of a processed task, for `celery_tasks_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The task succeeded.
    Success,
    /// The task failed and will not be retried.
    Failure,
    /// The task failed and will be retried.
    Retry,
    /// The task was revoked or expired before it ran.
    Revoked,
}

impl Outcome {
    fn status(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Retry => "retry",
            Self::Revoked => "revoked",
        }
    }

    fn state(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Retry => "RETRY",
            Self::Revoked => "REVOKED",
        }
    }
}

/// Result of processing a task.
#[derive(Clone, Debug)]
pub struct Processed {
    /// Final state.
    pub outcome: Outcome,
    /// Type and message of the exception, if any.
    pub exception: Option<(Cow<'static, str>, String)>,
}

/// A snapshot of a queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueDepth {
    /// Name of the queue.
    pub queue: String,
    /// Number of waiting messages.
    pub waiting: u64,
    /// Number of messages delivered and not yet acknowledged.
    pub unacknowledged: u64,
    /// Age of the oldest waiting message, if the broker reports it.
    pub oldest: Option<Duration>,
}

/// The Redis server of the broker.
#[derive(Clone, Debug)]
pub struct RedisServer {
    /// `server.address`.
    pub address: String,
    /// `server.port`.
    pub port: u16,
    /// `db.namespace`, the number of the database.
    pub database: i64,
}

/// Instruments for a program that sends or processes tasks; cheap to clone.
#[derive(Clone, Debug)]
pub struct Messaging {
    hostname: StringValue,
    redis: Arc<Redis>,
    known: Arc<KnownTasks>,
}

impl Messaging {
    /// Creates the instruments; `hostname` is the name of the worker (`celery.hostname`).
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: db::kept(hostname.into()),
            redis: Arc::new(Redis::new(vec![KeyValue::new("db.system.name", "redis")])),
            known: Arc::default(),
        }
    }

    /// Sets the server that the spans of [`Messaging::command`] name.
    #[must_use]
    pub fn with_redis(self, server: RedisServer) -> Self {
        Self {
            redis: Arc::new(Redis::new(vec![
                KeyValue::new("db.system.name", "redis"),
                KeyValue::new("db.namespace", db::kept(server.database.to_string())),
                KeyValue::new("server.address", db::kept(server.address)),
                KeyValue::new("server.port", i64::from(server.port)),
            ])),
            ..self
        }
    }

    /// Starts `celery.send_task`, a producer span with `parent` or the current span as its parent.
    ///
    /// The returned guard provides the headers to write into the message; finish it when the broker has replied.
    pub fn send(&self, message: &TaskMessage<'_>, parent: Option<&Context>) -> Sending {
        let start = |parent: &Context| {
            let beginning = Beginning::new(span::CELERY_SEND_TASK, SpanKind::Producer);
            context::start(parent, beginning, |into| {
                describe(message, "send_task", "send", into);
                into.text("messaging.message.id", message.id);
            })
        };
        let cx = match parent {
            Some(parent) => start(parent),
            None => Context::map_current(start),
        };
        Sending {
            cx,
            queue: message.queue.to_owned(),
            finished: false,
        }
    }

    /// Runs `work` in `celery.run`, a consumer span below `parent` (see [`crate::extract_context`]).
    ///
    /// `ended` converts the output of `work` to a result. If the future is dropped early, the span ends, but no metrics
    /// are recorded.
    pub async fn process<T>(
        &self,
        message: &TaskMessage<'_>,
        retries: u32,
        parent: Context,
        work: impl Future<Output = T>,
        ended: impl FnOnce(&T) -> Processed,
    ) -> T {
        let processing = self.start_processing(*message, retries, &parent);
        let result = context::within(processing.context(), pin!(work)).await;
        processing.finish(ended(&result));
        result
    }

    /// Like [`Messaging::process`], for callers that poll the work themselves.
    ///
    /// Run the work in the context of the returned guard, and finish the guard when the work has ended.
    pub fn start_processing<'a>(
        &'a self,
        message: TaskMessage<'a>,
        retries: u32,
        parent: &Context,
    ) -> Processing<'a> {
        let stopwatch = Stopwatch::start();
        let known = self.known.get(&message);
        let beginning = Beginning {
            since: stopwatch.time(),
            ..Beginning::new(span::CELERY_RUN, SpanKind::Consumer)
        };
        let cx = context::start(parent, beginning, |into| {
            let describe = |into: &mut Attributes| self.describe_run(&message, into);
            match known {
                Some(known) => known.attributes.begin(into, describe),
                None => describe(into),
            }
            into.text("messaging.message.id", message.id);
            into.number(attribute::CELERY_RETRIES, i64::from(retries));
        });
        if let Some(instruments) = instruments() {
            instruments.consumed(known, message.queue);
        }
        Processing {
            cx,
            message,
            known,
            stopwatch,
            finished: false,
        }
    }

    fn describe_run(&self, message: &TaskMessage<'_>, into: &mut Attributes) {
        describe(message, "run", "process", into);
        into.text(attribute::CELERY_HOSTNAME, self.hostname.as_str());
    }

    /// Starts a client span for a Redis command or pipeline, and records its `db.client.operation.duration`.
    ///
    /// `text` is the command with `?` in place of each argument, such as `BRPOP ? ?`. In a context of
    /// [`crate::on_behalf_of`], the span has links to the spans the command serves.
    pub fn command(&self, operation: &'static str, text: &'static str) -> Command {
        let stopwatch = Stopwatch::start();
        let describe = |into: &mut Attributes| {
            self.redis.fixed.iter().for_each(|attribute| into.set(attribute));
            into.literal("db.operation.name", operation);
            into.literal("db.query.summary", operation);
            into.literal("db.query.text", text);
        };
        let start = |current: &Context| {
            let beginning = Beginning {
                links: context::links_of_commands(current),
                since: stopwatch.time(),
                ..Beginning::new(operation, SpanKind::Client)
            };
            context::start(current, beginning, |into| {
                match self.redis.known(operation, text) {
                    Some(known) => known.begin(into, describe),
                    None => describe(into),
                }
            })
        };
        Command {
            cx: Context::map_current(start),
            redis: Arc::clone(&self.redis),
            operation,
            stopwatch,
            status_code: None,
            error_type: None,
            answered: false,
        }
    }

    /// Registers gauges for the queues. Call it after [`crate::init`].
    ///
    /// `read` runs on the export thread whenever metrics are collected, so it must be quick and must not block; let it
    /// return stored values.
    pub fn observe_queues(&self, read: impl Fn() -> Vec<QueueDepth> + Send + Sync + 'static) {
        let read = Arc::new(read);
        let waiting = Arc::clone(&read);
        metrics::observe_gauge(
            metric::CELERY_QUEUE_WAITING,
            "{message}",
            "Messages waiting in the queue.",
            move || gauge(&waiting(), |queue| Some(queue.waiting as f64)),
        );
        let unacknowledged = Arc::clone(&read);
        metrics::observe_gauge(
            metric::CELERY_QUEUE_UNACKNOWLEDGED,
            "{message}",
            "Messages delivered from the queue and not yet acknowledged.",
            move || gauge(&unacknowledged(), |queue| Some(queue.unacknowledged as f64)),
        );
        metrics::observe_gauge(
            metric::CELERY_QUEUE_OLDEST_AGE,
            "s",
            "Age of the oldest waiting message.",
            move || gauge(&read(), |queue| Some(queue.oldest?.as_secs_f64())),
        );
    }
}

/// Writes the attributes that both spans have in common.
fn describe(message: &TaskMessage<'_>, operation: &'static str, kind: &'static str, into: &mut Attributes) {
    into.literal("messaging.system", SYSTEM);
    into.literal("messaging.operation.name", operation);
    into.literal("messaging.operation.type", kind);
    into.text("messaging.destination.name", message.queue);
    into.text(attribute::CELERY_TASK_NAME, message.task);
}

fn gauge(queues: &[QueueDepth], value: impl Fn(&QueueDepth) -> Option<f64>) -> Vec<(f64, Vec<KeyValue>)> {
    queues
        .iter()
        .filter_map(|queue| {
            let name = KeyValue::new("messaging.destination.name", queue.queue.clone());
            Some((value(queue)?, vec![name]))
        })
        .collect()
}
