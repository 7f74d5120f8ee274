//! Recipients of notifications, and the record of deliveries.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, Recipient, UserId};

/// Finds recipients and records which of them were notified.
#[async_trait]
pub trait DeliveryStore: Debug + Send + Sync + 'static {
    /// Reads up to `limit` users to notify of `event`, with ids above `after`, in id order.
    ///
    /// For `created`, the users who have favourited another article of the author; for `updated`, those
    /// who have favourited this one. Never the author.
    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>>;

    /// Claims one delivery for `lease`, atomically.
    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim>;

    /// Records a delivery as completed, whether or not its claim still exists.
    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()>;

    /// Releases the claim on a delivery that failed.
    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()>;

    /// Deletes deliveries completed before `before`; returns their number.
    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64>;
}
