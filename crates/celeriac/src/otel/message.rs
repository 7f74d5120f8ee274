//! What spans and metrics need to know of a task message, and this crate's instrumentation scope.

use telemetry::instrumentation::Instrumentation;

/// The scope of this crate's spans and metrics.
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
