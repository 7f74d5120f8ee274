//! Instruments of a task queue, and the scope of this crate's telemetry. The series of successful tasks and
//! sent messages are cached up to a limit; the series of failures are looked up each time.

use std::{borrow::Cow, sync::OnceLock};

use telemetry::KeyValue;
use telemetry::instrumentation::{
    DurationHistogram, DurationSeries, InstrumentFactory, Instrumentation, Instruments, PrewrittenAttributes,
    SECONDS, Table,
};
use telemetry::names::attribute as shared;
use telemetry::opentelemetry::metrics::{BoundCounter, Counter};
use telemetry::opentelemetry::trace::SpanContext;

use super::names::{attribute, metric};
use crate::{observer::TaskInfo, task::TaskOutcome};

/// Instrumentation scope of the spans and metrics of this crate.
pub(super) static CELERIAC: Instrumentation =
    Instrumentation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

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
    total: Counter<u64>,
    seconds: DurationHistogram,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    process: DurationHistogram,
    buried: Counter<u64>,
    /// Counters of sent messages by queue.
    sent_to: Table<String, BoundCounter<u64>>,
}

impl TaskInstruments {
    fn new(factory: &InstrumentFactory<'_>) -> Self {
        let counter = |name: &'static str, unit: &'static str, description: &'static str| {
            let counter = factory.meter().u64_counter(name).with_unit(unit);
            counter.with_description(description).build()
        };
        Self {
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
            sent: counter(
                "messaging.client.sent.messages",
                "{message}",
                "Number of messages the producer attempted to send to the broker.",
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
            sent_to: Table::new(MAX_QUEUES),
        }
    }

    /// Counts a message that went to the dead-letter list.
    pub(super) fn buried(&self, queue: &str) {
        let queue = KeyValue::new("messaging.destination.name", queue.to_owned());
        self.buried.add(1, &[queue]);
    }

    /// Counts an attempt to send a message to the broker.
    pub(super) fn sent(&self, queue: &str, error_type: Option<Cow<'static, str>>) {
        let attributes = |error_type| message_attributes(queue, SEND, error_type);
        let bind = || self.sent.bind(&attributes(None));
        let succeeded = error_type.is_none();
        match succeeded.then(|| self.sent_to.get(queue, bind)).flatten() {
            Some(counter) => counter.add(1),
            None => self.sent.add(1, &attributes(error_type)),
        }
    }

    /// Counts a delivered message; `cached` is the cache entry of its task, if any.
    pub(super) fn consumed(&self, cached: Option<&CachedTask>, queue: &str) {
        let attributes = || message_attributes(queue, RUN, None);
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
        cached: Option<&CachedTask>,
        task: &TaskInfo<'_>,
        outcome: &TaskOutcome,
        error_type: Option<Cow<'static, str>>,
        seconds: f64,
        span: &SpanContext,
    ) {
        let is_success = matches!(outcome, TaskOutcome::Success(_)) && error_type.is_none();
        match cached {
            Some(cached) if is_success => {
                let succeeded = cached.succeeded.get_or_init(|| self.succeeded(task));
                succeeded.total.add(1);
                succeeded.seconds.record(seconds, span);
                succeeded.process.record(seconds, span);
            }
            _ => {
                let [name, status] = total_attributes(task.task, status(outcome));
                self.total.add(1, &[name.clone(), status]);
                self.seconds.record(seconds, &[name], span);
                let attributes = message_attributes(task.queue, RUN, error_type);
                self.process.record(seconds, &attributes, span);
            }
        }
    }

    fn succeeded(&self, task: &TaskInfo<'_>) -> SuccessSeries {
        let attributes = total_attributes(task.task, "success");
        SuccessSeries {
            total: self.total.bind(&attributes),
            seconds: self.seconds.series(&attributes[..1]),
            process: self.process.series(&message_attributes(task.queue, RUN, None)),
        }
    }
}

/// Cache of the encoded attributes and metric series of tasks, by queue and name.
#[derive(Debug)]
pub(super) struct TaskCache(Table<String, Table<String, CachedTask>>);

impl Default for TaskCache {
    fn default() -> Self {
        Self(Table::new(MAX_QUEUES))
    }
}

impl TaskCache {
    /// Returns the cache entry of a task, or `None` if a limit is reached.
    pub(super) fn get(&self, task: &TaskInfo<'_>) -> Option<&CachedTask> {
        let tasks = self.0.get(task.queue, || Table::new(MAX_TASKS))?;
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
    total: BoundCounter<u64>,
    seconds: DurationSeries,
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
    attributes
}
