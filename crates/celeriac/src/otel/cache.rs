//! Cache of the encoded attributes and metric series of the tasks that a worker runs. Tasks beyond the limits
//! are not cached.

use std::sync::OnceLock;

use telemetry::instrumentation::{DurationSeries, PrewrittenAttributes, Table};
use telemetry::opentelemetry::metrics::BoundCounter;

use crate::observer::TaskInfo;

/// Maximum number of queues with cached tasks.
const MAX_QUEUES: usize = 64;

/// Maximum number of cached tasks per queue.
const MAX_TASKS: usize = 512;

/// Cached tasks by queue and name.
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
    pub(super) consumed: OnceLock<BoundCounter<u64>>,
    pub(super) succeeded: OnceLock<SuccessSeries>,
}

/// Series of a successful task.
#[derive(Debug)]
pub(super) struct SuccessSeries {
    pub(super) total: BoundCounter<u64>,
    pub(super) seconds: DurationSeries,
    pub(super) process: DurationSeries,
}
