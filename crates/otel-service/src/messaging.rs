//! Spans and metrics of a task queue: `celery.send_task` on the sending side, `celery.run` on the working side, the
//! broker's commands as client spans. Knows no wire format: names, ids and headers are given to it.

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

/// One task message, as both sides see it.
#[derive(Clone, Copy, Debug)]
pub struct TaskMessage<'a> {
    /// The task's name: `celery.task_name`, and `name` of the metrics. Must be of bounded variety.
    pub task: &'a str,
    /// `messaging.message.id`.
    pub id: &'a str,
    /// `messaging.destination.name`.
    pub queue: &'a str,
}

/// How processing ended, for `celery_tasks_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It did its work.
    Success,
    /// It failed for good.
    Failure,
    /// It failed and will be tried again.
    Retry,
    /// It was called off before it ran, or had expired.
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

/// What telemetry needs to know of a task that was processed.
#[derive(Clone, Debug)]
pub struct Processed {
    /// How it ended.
    pub outcome: Outcome,
    /// Type and message of the exception, when there was one.
    pub exception: Option<(Cow<'static, str>, String)>,
}

/// One queue at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Messages taken and not yet acknowledged.
    pub unacknowledged: u64,
    /// How long the oldest waiting message waits, where the broker knows.
    pub oldest: Option<Duration>,
}

/// The Redis that commands go to.
#[derive(Clone, Debug)]
pub struct RedisServer {
    /// `server.address`.
    pub address: String,
    /// `server.port`.
    pub port: u16,
    /// `db.namespace`, the database's number.
    pub database: i64,
}

/// Spans and metrics of one program at a queue; cheap to clone.
#[derive(Clone, Debug)]
pub struct Messaging {
    hostname: StringValue,
    redis: Arc<Redis>,
    known: Arc<KnownTasks>,
}

impl Messaging {
    /// `hostname` is the worker's name, `celery.hostname` of what it processes.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: db::kept(hostname.into()),
            redis: Arc::new(Redis::new(vec![KeyValue::new("db.system.name", "redis")])),
            known: Arc::default(),
        }
    }

    /// Names the server that [`Messaging::command`] spans talk to.
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

    /// Starts `celery.send_task`, a producer span below `parent` or else below the span in force. What it returns has
    /// the headers to write into the message, and is finished when the broker has answered.
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

    /// Runs `work` in `celery.run`, a consumer span below `parent` (see [`crate::extract_context`]); `ended` says how
    /// it ended. A work that is dropped half-way counts as nothing and only ends its span.
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

    /// [`Messaging::process`] for who polls the work: that is to be done in the context of what this returns, which is to be
    /// finished when the work has ended.
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

    /// Starts a client span for one Redis command (or pipeline) and its `db.client.operation.duration`. Arguments are
    /// never given to it: `text` is the command with `?` for each, as `BRPOP ? ?`. In a context of
    /// [`crate::on_behalf_of`] the span links to what the command is for.
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

    /// Reports the queues whenever metrics are collected: `read` runs on the exporter's thread, must be quick and must
    /// not block (keep the last depths somewhere and read those). Call it after [`crate::init`].
    pub fn observe_queues(&self, read: impl Fn() -> Vec<QueueDepth> + Send + Sync + 'static) {
        let read = Arc::new(read);
        let waiting = Arc::clone(&read);
        metrics::observe_gauge(
            metric::CELERY_QUEUE_WAITING,
            "{message}",
            "Messages that wait in the queue.",
            move || gauge(&waiting(), |queue| Some(queue.waiting as f64)),
        );
        let unacknowledged = Arc::clone(&read);
        metrics::observe_gauge(
            metric::CELERY_QUEUE_UNACKNOWLEDGED,
            "{message}",
            "Messages taken from the queue and not yet acknowledged.",
            move || gauge(&unacknowledged(), |queue| Some(queue.unacknowledged as f64)),
        );
        metrics::observe_gauge(
            metric::CELERY_QUEUE_OLDEST_AGE,
            "s",
            "How long the oldest waiting message waits.",
            move || gauge(&read(), |queue| Some(queue.oldest?.as_secs_f64())),
        );
    }
}

/// What both spans say of every message of a queue and task.
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
