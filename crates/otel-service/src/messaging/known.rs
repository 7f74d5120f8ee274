//! A cache for each task that a worker runs: its encoded attributes and its series. Tasks beyond the limits are not
//! cached.

use std::sync::OnceLock;

use opentelemetry::metrics::BoundCounter;

use super::TaskMessage;
use crate::metrics::{Series, Table};
use crate::recording::KnownAttributes;

const QUEUE_LIMIT: usize = 64;
/// Maximum number of cached tasks per queue.
const TASK_LIMIT: usize = 512;

/// Cached tasks by queue and name.
#[derive(Debug)]
pub(super) struct KnownTasks(Table<String, Table<String, KnownTask>>);

impl Default for KnownTasks {
    fn default() -> Self {
        Self(Table::new(QUEUE_LIMIT))
    }
}

impl KnownTasks {
    /// Returns the cache entry of a task, or `None` if a limit is reached.
    pub(super) fn get(&self, message: &TaskMessage<'_>) -> Option<&KnownTask> {
        let tasks = self.0.get(message.queue, || Table::new(TASK_LIMIT))?;
        tasks.get(message.task, KnownTask::default)
    }
}

/// A task of a queue. Each field is set on first use, because a series without measurements would be exported too.
#[derive(Debug, Default)]
pub(super) struct KnownTask {
    pub(super) attributes: KnownAttributes,
    pub(super) consumed: OnceLock<BoundCounter<u64>>,
    pub(super) succeeded: OnceLock<Succeeded>,
}

/// The series of a successful task.
#[derive(Debug)]
pub(super) struct Succeeded {
    pub(super) total: BoundCounter<u64>,
    pub(super) seconds: Series,
    pub(super) process: Series,
}
