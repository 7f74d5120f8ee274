//! The outbox: tasks that are committed together with the change they report, and published afterwards.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{Backlog, OutboxTask};

/// Stores tasks until they are published. [`ArticleStore`](super::ArticleStore) inserts them.
#[async_trait]
pub trait OutboxStore: Debug + Send + Sync + 'static {
    /// Claims up to `limit` waiting tasks for `lease`, the oldest first. A task can be claimed again after
    /// its lease expires.
    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>>;

    /// Deletes tasks that have finished.
    async fn delete_outbox(&self, ids: &[i64]) -> Result<()>;

    /// Releases the claims on tasks whose lease ends at `until`; they can be claimed again from `retry_at`. Keeps the claims
    /// of other processes, which may have claimed the tasks after `until`.
    async fn release_outbox(&self, ids: &[i64], until: Timestamp, retry_at: Timestamp) -> Result<()>;

    /// Releases all claims and returns their number. Only for a process that is the outbox's only user.
    async fn release_all_outbox(&self) -> Result<u64>;

    /// Returns the number of waiting tasks and the age of the oldest.
    async fn outbox_backlog(&self) -> Result<Backlog>;
}

/// Returns the time at which a lease that starts now expires.
#[must_use]
pub fn lease_end(now: Timestamp, lease: Duration) -> Timestamp {
    now.saturating_add(lease).unwrap_or(Timestamp::MAX)
}
