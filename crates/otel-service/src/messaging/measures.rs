//! The instruments of a task queue. The series of what is usual, of tasks that succeed and messages that are sent, are
//! looked up once; failures take the long way.

use std::borrow::Cow;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, Counter, Meter};
use opentelemetry::trace::SpanContext;

use super::known::{KnownTask, Succeeded};
use super::{Outcome, SYSTEM, TaskMessage};
use crate::metrics::{Durations, Instruments, SECONDS, Table};
use crate::names::{attribute, metric};

/// How many queues have their counter looked up once.
const QUEUE_LIMIT: usize = 64;

const SEND: &str = "send_task";
const RUN: &str = "run";

static INSTRUMENTS: Instruments<Tasks> = Instruments::new();

/// The instruments, once metrics are on.
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
    /// By queue.
    sent_to: Table<String, BoundCounter<u64>>,
}

impl Tasks {
    fn new(meter: &Meter) -> Self {
        Self {
            total: meter
                .u64_counter(metric::CELERY_TASKS_TOTAL)
                .with_unit("{task}")
                .with_description("Tasks that ended, by name and status.")
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
                .with_description("Messages that a producer tried to send.")
                .build(),
            consumed: meter
                .u64_counter("messaging.client.consumed.messages")
                .with_unit("{message}")
                .with_description("Messages given to the application.")
                .build(),
            process: Durations::new(
                meter,
                "messaging.process.duration",
                "Duration of processing messages.",
                &SECONDS,
            ),
            sent_to: Table::new(QUEUE_LIMIT),
        }
    }

    /// Counts a message that was given to the broker, or was to be.
    pub(super) fn sent(&self, queue: &str, error_type: Option<Cow<'static, str>>) {
        let attributes = |error_type| of_messages(queue, SEND, error_type);
        let bind = || self.sent.bind(&attributes(None));
        let usual = error_type.is_none();
        match usual.then(|| self.sent_to.get(queue, bind)).flatten() {
            Some(counter) => counter.add(1),
            None => self.sent.add(1, &attributes(error_type)),
        }
    }

    /// Counts a message that was taken from the broker, one of a task that is `known` unless there are too many.
    pub(super) fn consumed(&self, known: Option<&KnownTask>, queue: &str) {
        let attributes = || of_messages(queue, RUN, None);
        match known {
            Some(known) => {
                let bind = || self.consumed.bind(&attributes());
                known.consumed.get_or_init(bind).add(1);
            }
            None => self.consumed.add(1, &attributes()),
        }
    }

    /// Records a task that took so many seconds and whose span is `span`.
    pub(super) fn processed(
        &self,
        known: Option<&KnownTask>,
        message: &TaskMessage<'_>,
        outcome: Outcome,
        error_type: Option<Cow<'static, str>>,
        seconds: f64,
        span: &SpanContext,
    ) {
        let usual = outcome == Outcome::Success && error_type.is_none();
        match known {
            Some(known) if usual => {
                let succeeded = known.succeeded.get_or_init(|| self.succeeded(message));
                succeeded.total.add(1);
                succeeded.seconds.record(seconds, span);
                succeeded.process.record(seconds, span);
            }
            _ => {
                self.total.add(1, &of_ended(message.task, outcome));
                self.seconds.record(seconds, &of_task(message.task), span);
                let attributes = of_messages(message.queue, RUN, error_type);
                self.process.record(seconds, &attributes, span);
            }
        }
    }

    fn succeeded(&self, message: &TaskMessage<'_>) -> Succeeded {
        Succeeded {
            total: self.total.bind(&of_ended(message.task, Outcome::Success)),
            seconds: self.seconds.series(&of_task(message.task)),
            process: self.process.series(&of_messages(message.queue, RUN, None)),
        }
    }
}

/// Attributes of `celery_tasks_total`.
fn of_ended(task: &str, outcome: Outcome) -> [KeyValue; 2] {
    [
        KeyValue::new(attribute::NAME, task.to_owned()),
        KeyValue::new(attribute::STATUS, outcome.status()),
    ]
}

/// Attributes of `celery_task_duration_seconds`.
fn of_task(task: &str) -> [KeyValue; 1] {
    [KeyValue::new(attribute::NAME, task.to_owned())]
}

/// Attributes of the `messaging.*` metrics.
fn of_messages(queue: &str, operation: &'static str, error_type: Option<Cow<'static, str>>) -> Vec<KeyValue> {
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
