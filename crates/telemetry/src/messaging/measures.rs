//! The instruments of a task queue.

use std::borrow::Cow;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;

use super::SYSTEM;
use crate::metrics::{Durations, Instruments, SECONDS};

static INSTRUMENTS: Instruments<Tasks> = Instruments::new();

#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) total: Counter<u64>,
    pub(super) seconds: Durations,
    pub(super) sent: Counter<u64>,
    pub(super) consumed: Counter<u64>,
    pub(super) process: Durations,
}

pub(super) fn instruments() -> Option<&'static Tasks> {
    INSTRUMENTS.get(|meter| Tasks {
        total: meter
            .u64_counter("celery_tasks_total")
            .with_unit("{task}")
            .with_description("Tasks that ended, by name and status.")
            .build(),
        seconds: Durations::new(
            meter,
            "celery_task_duration_seconds",
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
    })
}

/// Attributes of the `messaging.*` metrics.
pub(super) fn of_metric(
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
