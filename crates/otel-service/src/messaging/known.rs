//! What is found once for each task that a worker runs and then used again and again: attributes that are written already,
//! and series of instruments. Of what exceeds the limits nothing is kept.

use std::sync::OnceLock;

use opentelemetry::metrics::BoundCounter;

use super::TaskMessage;
use crate::metrics::{Series, Table};
use crate::recording::KnownAttributes;

const QUEUE_LIMIT: usize = 64;
/// Of each queue.
const TASK_LIMIT: usize = 512;

/// Tasks by queue and name.
#[derive(Debug)]
pub(super) struct KnownTasks(Table<String, Table<String, KnownTask>>);

impl Default for KnownTasks {
    fn default() -> Self {
        Self(Table::new(QUEUE_LIMIT))
    }
}

impl KnownTasks {
    /// `None` when there are too many of them.
    pub(super) fn get(&self, message: &TaskMessage<'_>) -> Option<&KnownTask> {
        let of_queue = self.0.get(message.queue, || Table::new(TASK_LIMIT))?;
        of_queue.get(message.task, KnownTask::default)
    }
}

/// One task of one queue. Each part is there once it was needed: a series without measurements would be exported too.
#[derive(Debug, Default)]
pub(super) struct KnownTask {
    pub(super) attributes: KnownAttributes,
    pub(super) consumed: OnceLock<BoundCounter<u64>>,
    pub(super) succeeded: OnceLock<Succeeded>,
}

/// The series of a task that succeeded.
#[derive(Debug)]
pub(super) struct Succeeded {
    pub(super) total: BoundCounter<u64>,
    pub(super) seconds: Series,
    pub(super) process: Series,
}
