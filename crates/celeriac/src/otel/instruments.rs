//! Instruments of a task queue, and the scope of this crate's telemetry. The series of successful tasks and
//! sent messages are cached up to a limit; the series of failures are looked up each time.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use telemetry::KeyValue;
use telemetry::instrumentation::{
    DurationHistogram, DurationSeries, InstrumentFactory, Instrumentation, Instruments, PrewrittenAttributes,
    SECONDS, Table, python_names,
};
use telemetry::names::{SCHEMA_URL, attribute as shared};
use telemetry::opentelemetry::metrics::{BoundCounter, Counter};
use telemetry::opentelemetry::trace::SpanContext;

use super::names::{attribute, metric};
use crate::{observer::TaskInfo, task::TaskOutcome};

/// Instrumentation scope of the spans and metrics of this crate.
pub(super) static CELERIAC: Instrumentation =
    Instrumentation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA_URL);

/// Value of `messaging.system`.
pub(super) const SYSTEM: &str = "celery";

/// Maximum number of cached queues.
const MAX_QUEUES: usize = 64;
/// Maximum number of cached tasks per queue.
const MAX_TASKS: usize = 512;

const SEND: &str = "send_task";
const RUN: &str = "run";

static INSTRUMENTS: Instruments<TaskInstruments> = Instruments::new();

/// Returns the instruments, or `None` while metrics are disabled.
pub(super) fn instruments() -> Option<&'static TaskInstruments> {
    INSTRUMENTS.get(&CELERIAC, TaskInstruments::new)
}

#[derive(Debug)]
pub(super) struct TaskInstruments {
    /// `None` without [`python_names`].
    python: Option<PythonInstruments>,
    sent: Counter<u64>,
    operation: DurationHistogram,
    consumed: Counter<u64>,
    process: DurationHistogram,
    buried: Counter<u64>,
}

/// The instruments that dashboards of Celery's Python instrumentation use.
#[derive(Debug)]
struct PythonInstruments {
    total: Counter<u64>,
    seconds: DurationHistogram,
}

impl TaskInstruments {
    fn new(factory: &InstrumentFactory<'_>) -> Self {
        let counter = |name: &'static str, unit: &'static str, description: &'static str| {
            let counter = factory.meter().u64_counter(name).with_unit(unit);
            counter.with_description(description).build()
        };
        Self {
            python: python_names().then(|| PythonInstruments {
                total: counter(
                    metric::CELERY_TASKS_TOTAL,
                    "{task}",
                    "Finished tasks by name and status.",
                ),
                seconds: factory.durations(
                    metric::CELERY_TASK_DURATION_SECONDS,
                    "Duration of tasks by name.",
                    &SECONDS,
                ),
            }),
            sent: counter(
                "messaging.client.sent.messages",
                "{message}",
                "Number of messages the producer attempted to send to the broker.",
            ),
            operation: factory.durations(
                "messaging.client.operation.duration",
                "Duration of messaging operation initiated by a producer or consumer client.",
                &SECONDS,
            ),
            consumed: counter(
                "messaging.client.consumed.messages",
                "{message}",
                "Number of messages that were delivered to the application.",
            ),
            process: factory.durations(
                "messaging.process.duration",
                "Duration of the processing operation.",
                &SECONDS,
            ),
            buried: counter(
                metric::CELERIAC_MESSAGES_BURIED,
                "{message}",
                "Messages that went to the dead-letter list.",
            ),
        }
    }

    /// Counts a message that went to the dead-letter list.
    pub(super) fn buried(&self, queue: &str, server: &[KeyValue]) {
        let queue = KeyValue::new("messaging.destination.name", queue.to_owned());
        self.buried.add(1, &[&[queue], server].concat());
    }

    /// Records an attempt to send a message to the broker: its duration in seconds, and its span for exemplars.
    pub(super) fn sent(
        &self,
        node: &Node,
        queue: &str,
        error_type: Option<Cow<'static, str>>,
        seconds: f64,
        span: &SpanContext,
    ) {
        let attributes = |error_type| message_attributes(node, queue, SEND, error_type);
        let bind = || {
            let attributes = attributes(None);
            (self.sent.bind(&attributes), self.operation.series(&attributes))
        };
        let succeeded = error_type.is_none();
        match succeeded.then(|| node.cache.sent.get(queue, bind)).flatten() {
            Some((sent, operation)) => {
                sent.add(1);
                operation.record(seconds, span);
            }
            None => {
                let attributes = attributes(error_type);
                self.sent.add(1, &attributes);
                self.operation.record(seconds, &attributes, span);
            }
        }
    }

    /// Counts a delivered message; `cached` is the cache entry of its task, if any.
    pub(super) fn consumed(&self, node: &Node, cached: Option<&CachedTask>, queue: &str) {
        let attributes = || message_attributes(node, queue, RUN, None);
        match cached {
            Some(cached) => {
                let bind = || self.consumed.bind(&attributes());
                cached.consumed.get_or_init(bind).add(1);
            }
            None => self.consumed.add(1, &attributes()),
        }
    }

    /// Records a processed task: its outcome, its duration in seconds, and its span for exemplars.
    pub(super) fn processed(
        &self,
        node: &Node,
        cached: Option<&CachedTask>,
        task: &TaskInfo<'_>,
        outcome: &TaskOutcome,
        seconds: f64,
        span: &SpanContext,
    ) {
        let error_type = outcome
            .exception()
            .map(|exception| Cow::Owned(exception.type_name.clone()));
        let is_success = matches!(outcome, TaskOutcome::Success(_)) && error_type.is_none();
        match cached {
            Some(cached) if is_success => {
                let succeeded = cached.succeeded.get_or_init(|| self.succeeded(node, task));
                if let Some((total, duration)) = &succeeded.python {
                    total.add(1);
                    duration.record(seconds, span);
                }
                succeeded.process.record(seconds, span);
            }
            _ => {
                if let Some(python) = &self.python {
                    let [name, status] = total_attributes(task.task, status(outcome));
                    python.total.add(1, &[name.clone(), status]);
                    python.seconds.record(seconds, &[name], span);
                }
                let attributes = message_attributes(node, task.queue, RUN, error_type);
                self.process.record(seconds, &attributes, span);
            }
        }
    }

    fn succeeded(&self, node: &Node, task: &TaskInfo<'_>) -> SuccessSeries {
        let attributes = total_attributes(task.task, "success");
        let of_process = message_attributes(node, task.queue, RUN, None);
        SuccessSeries {
            python: self.python.as_ref().map(|python| {
                let total = python.total.bind(&attributes);
                (total, python.seconds.series(&attributes[..1]))
            }),
            process: self.process.series(&of_process),
        }
    }
}

/// A worker or client whose messages are recorded.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Name of the worker.
    pub(super) hostname: Arc<str>,
    /// Address of the broker's server; empty if unknown.
    pub(super) server: Arc<[KeyValue]>,
    pub(super) cache: TaskCache,
}

/// Cache of the encoded attributes and metric series of the messages of one server.
#[derive(Debug)]
pub(super) struct TaskCache {
    /// Tasks by queue and name.
    tasks: Table<String, Table<String, CachedTask>>,
    /// Series of sent messages by queue.
    sent: Table<String, (BoundCounter<u64>, DurationSeries)>,
}

impl Default for TaskCache {
    fn default() -> Self {
        Self {
            tasks: Table::new(MAX_QUEUES),
            sent: Table::new(MAX_QUEUES),
        }
    }
}

impl TaskCache {
    /// Returns the cache entry of a task, or `None` if a limit is reached.
    pub(super) fn get(&self, task: &TaskInfo<'_>) -> Option<&CachedTask> {
        let tasks = self.tasks.get(task.queue, || Table::new(MAX_TASKS))?;
        tasks.get(task.task, CachedTask::default)
    }
}

/// Cache entry of a task in a queue. Each field is set on first use, because a series without measurements
/// would be exported too.
#[derive(Debug, Default)]
pub(super) struct CachedTask {
    pub(super) attributes: PrewrittenAttributes,
    consumed: OnceLock<BoundCounter<u64>>,
    succeeded: OnceLock<SuccessSeries>,
}

/// Series of a successful task.
#[derive(Debug)]
struct SuccessSeries {
    python: Option<(BoundCounter<u64>, DurationSeries)>,
    process: DurationSeries,
}

/// Returns the value of the `status` attribute.
fn status(outcome: &TaskOutcome) -> &'static str {
    match outcome {
        TaskOutcome::Success(_) => "success",
        TaskOutcome::Retry { .. } => "retry",
        TaskOutcome::Failure(_) | TaskOutcome::Aborted(_) => "failure",
        TaskOutcome::Ignored => "ignored",
        TaskOutcome::Rejected { .. } => "rejected",
        TaskOutcome::Revoked(_) => "revoked",
    }
}

/// Returns the attributes of `celery_tasks_total`. The first is also the only attribute of
/// `celery_task_duration_seconds`.
fn total_attributes(task: &str, status: &'static str) -> [KeyValue; 2] {
    [
        KeyValue::new(attribute::NAME, task.to_owned()),
        KeyValue::new(shared::STATUS, status),
    ]
}

/// Returns the attributes of the `messaging.*` metrics.
fn message_attributes(
    node: &Node,
    queue: &str,
    operation: &'static str,
    error_type: Option<Cow<'static, str>>,
) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", queue.to_owned()),
    ];
    if let Some(error_type) = error_type {
        attributes.push(KeyValue::new("error.type", error_type));
    }
    attributes.extend_from_slice(&node.server);
    attributes
}
