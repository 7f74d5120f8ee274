//! The instruments of a task queue. The series of successful tasks and sent messages are cached; the series
//! of failures are looked up each time.

use std::borrow::Cow;

use telemetry::KeyValue;
use telemetry::instrumentation::{DurationHistogram, InstrumentFactory, Instruments, SECONDS, Table};
use telemetry::names::attribute as shared;
use telemetry::opentelemetry::metrics::{BoundCounter, Counter};
use telemetry::opentelemetry::trace::SpanContext;

use super::cache::{CachedTask, SuccessSeries};
use super::message::{CELERIAC, SYSTEM, TaskMessage};
use super::names::{attribute, metric};
use crate::task::TaskOutcome;

/// Maximum number of queues whose counter is cached.
const MAX_QUEUES: usize = 64;

const SEND: &str = "send_task";
const RUN: &str = "run";

/// `status` of a task that succeeded.
const SUCCESS: &str = "success";

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
        let meter = factory.meter();
        Self {
            total: meter
                .u64_counter(metric::CELERY_TASKS_TOTAL)
                .with_unit("{task}")
                .with_description("Finished tasks by name and status.")
                .build(),
            seconds: factory.durations(
                metric::CELERY_TASK_DURATION_SECONDS,
                "Duration of tasks by name.",
                &SECONDS,
            ),
            sent: meter
                .u64_counter("messaging.client.sent.messages")
                .with_unit("{message}")
                .with_description("Number of messages the producer attempted to send to the broker.")
                .build(),
            consumed: meter
                .u64_counter("messaging.client.consumed.messages")
                .with_unit("{message}")
                .with_description("Number of messages that were delivered to the application.")
                .build(),
            process: factory.durations(
                "messaging.process.duration",
                "Duration of the processing operation.",
                &SECONDS,
            ),
            buried: meter
                .u64_counter(metric::CELERIAC_MESSAGES_BURIED)
                .with_unit("{message}")
                .with_description("Messages that went to the dead-letter list.")
                .build(),
            sent_to: Table::new(MAX_QUEUES),
        }
    }

    /// Counts a message that went to the dead-letter list.
    pub(super) fn buried(&self, queue: &str) {
        self.buried.add(
            1,
            &[KeyValue::new("messaging.destination.name", queue.to_owned())],
        );
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
        message: &TaskMessage<'_>,
        outcome: &TaskOutcome,
        error_type: Option<Cow<'static, str>>,
        seconds: f64,
        span: &SpanContext,
    ) {
        let is_success = matches!(outcome, TaskOutcome::Success(_)) && error_type.is_none();
        match cached {
            Some(cached) if is_success => {
                let succeeded = cached.succeeded.get_or_init(|| self.succeeded(message));
                succeeded.total.add(1);
                succeeded.seconds.record(seconds, span);
                succeeded.process.record(seconds, span);
            }
            _ => {
                self.total
                    .add(1, &total_attributes(message.task, status(outcome)));
                self.seconds
                    .record(seconds, &seconds_attributes(message.task), span);
                let attributes = message_attributes(message.queue, RUN, error_type);
                self.process.record(seconds, &attributes, span);
            }
        }
    }

    fn succeeded(&self, message: &TaskMessage<'_>) -> SuccessSeries {
        SuccessSeries {
            total: self.total.bind(&total_attributes(message.task, SUCCESS)),
            seconds: self.seconds.series(&seconds_attributes(message.task)),
            process: self.process.series(&message_attributes(message.queue, RUN, None)),
        }
    }
}

/// Returns the value of `status`.
fn status(outcome: &TaskOutcome) -> &'static str {
    match outcome {
        TaskOutcome::Success(_) => SUCCESS,
        TaskOutcome::Failure(_) | TaskOutcome::Rejected(..) => "failure",
        TaskOutcome::Retry { .. } => "retry",
        TaskOutcome::Revoked(_) => "revoked",
    }
}

/// Returns the attributes of `celery_tasks_total`.
fn total_attributes(task: &str, status: &'static str) -> [KeyValue; 2] {
    [
        KeyValue::new(attribute::NAME, task.to_owned()),
        KeyValue::new(shared::STATUS, status),
    ]
}

/// Returns the attributes of `celery_task_duration_seconds`.
fn seconds_attributes(task: &str) -> [KeyValue; 1] {
    [KeyValue::new(attribute::NAME, task.to_owned())]
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
