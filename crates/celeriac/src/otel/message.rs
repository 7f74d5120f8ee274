//! Properties of a task message for spans and metrics, and the instrumentation scope of this crate.

use telemetry::instrumentation::Instrumentation;

/// Instrumentation scope of the spans and metrics of this crate.
pub(super) static CELERIAC: Instrumentation =
    Instrumentation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

/// Value of `messaging.system`.
pub(super) const SYSTEM: &str = "celery";

/// A task message that is sent or processed.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskMessage<'a> {
    /// Name of the task, for `celery.task_name` and metrics. Must have a bounded number of values.
    pub(super) task: &'a str,
    /// `messaging.message.id`.
    pub(super) id: &'a str,
    /// `messaging.destination.name`.
    pub(super) queue: &'a str,
}
