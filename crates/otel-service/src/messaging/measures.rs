//! The instruments of a task queue. The series of successful tasks and sent messages are cached; failures look theirs up
//! each time.

use std::borrow::Cow;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, Counter, Meter};
use opentelemetry::trace::SpanContext;

use super::known::{KnownTask, Succeeded};
use super::{Outcome, SYSTEM, TaskMessage};
use crate::metrics::{Durations, Instruments, SECONDS, Table};
use crate::names::{attribute, metric};

/// Maximum number of queues whose counter is cached.
const QUEUE_LIMIT: usize = 64;

const SEND: &str = "send_task";
const RUN: &str = "run";

static INSTRUMENTS: Instruments<Tasks> = Instruments::new();

/// Returns the instruments, or `None` while metrics are disabled.
pub(super) fn instruments() -> Option<&'static Tasks> {
    INSTRUMENTS.get(Tasks::new)
}

#[derive(Debug)]
pub(super) struct Tasks {
    total: Counter<u64>,
    seconds: Durations,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    process: Durations,
    /// Counters of sent messages by queue.
    sent_to: Table<String, BoundCounter<u64>>,
}

impl Tasks {
    fn new(meter: &Meter) -> Self {
        Self {
            total: meter
                .u64_counter(metric::CELERY_TASKS_TOTAL)
                .with_unit("{task}")
                .with_description("Finished tasks by name and status.")
                .build(),
            seconds: Durations::new(
                meter,
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
            process: Durations::new(
                meter,
                "messaging.process.duration",
                "Duration of the processing operation.",
                &SECONDS,
            ),
            sent_to: Table::new(QUEUE_LIMIT),
        }
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

    /// Counts a delivered message; `known` is the cache entry of its task, if any.
    pub(super) fn consumed(&self, known: Option<&KnownTask>, queue: &str) {
        let attributes = || message_attributes(queue, RUN, None);
        match known {
            Some(known) => {
                let bind = || self.consumed.bind(&attributes());
                known.consumed.get_or_init(bind).add(1);
            }
            None => self.consumed.add(1, &attributes()),
        }
    }

    /// Records a processed task: its duration in seconds, and its span for exemplars.
    pub(super) fn processed(
        &self,
        known: Option<&KnownTask>,
        message: &TaskMessage<'_>,
        outcome: Outcome,
        error_type: Option<Cow<'static, str>>,
        seconds: f64,
        span: &SpanContext,
    ) {
        let is_success = outcome == Outcome::Success && error_type.is_none();
        match known {
            Some(known) if is_success => {
                let succeeded = known.succeeded.get_or_init(|| self.succeeded(message));
                succeeded.total.add(1);
                succeeded.seconds.record(seconds, span);
                succeeded.process.record(seconds, span);
            }
            _ => {
                self.total.add(1, &total_attributes(message.task, outcome));
                self.seconds
                    .record(seconds, &seconds_attributes(message.task), span);
                let attributes = message_attributes(message.queue, RUN, error_type);
                self.process.record(seconds, &attributes, span);
            }
        }
    }

    fn succeeded(&self, message: &TaskMessage<'_>) -> Succeeded {
        Succeeded {
            total: self.total.bind(&total_attributes(message.task, Outcome::Success)),
            seconds: self.seconds.series(&seconds_attributes(message.task)),
            process: self.process.series(&message_attributes(message.queue, RUN, None)),
        }
    }
}

/// Returns the attributes of `celery_tasks_total`.
fn total_attributes(task: &str, outcome: Outcome) -> [KeyValue; 2] {
    [
        KeyValue::new(attribute::NAME, task.to_owned()),
        KeyValue::new(attribute::STATUS, outcome.status()),
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
