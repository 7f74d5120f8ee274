//! Published tasks, which are recorded until they have finished because the broker may lose them.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{PublishedBatch, PublishedTask};

/// Records the tasks of the outbox that a broker outside this process has accepted.
#[async_trait]
pub trait PublishedTaskStore: Debug + Send + Sync + 'static {
    /// Moves tasks from the outbox to the record of published tasks.
    async fn record_published(&self, ids: &[i64], batch: PublishedBatch, now: Timestamp) -> Result<()>;

    /// Reads up to `limit` published tasks with ids above `after`, in id order.
    async fn published_tasks(&self, after: i64, limit: i64) -> Result<Vec<PublishedTask>>;

    /// Moves published tasks back to the outbox, to be published again under the same task id. Returns their
    /// number. Skips tasks that have been published again since they were read.
    async fn republish(&self, tasks: &[PublishedTask], now: Timestamp) -> Result<u64>;

    /// Deletes the record of published tasks, except those that have been published again since they were read.
    async fn delete_published(&self, tasks: &[PublishedTask]) -> Result<()>;
}
