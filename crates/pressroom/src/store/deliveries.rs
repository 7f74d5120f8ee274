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
    /// `created` is for users who have favourited another article of the author, `updated` for users who have
    /// favourited this article. The author is never included.
    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>>;

    /// Claims one delivery for `lease`. Atomic.
    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim>;

    /// Records a delivery as completed, even if its claim no longer exists.
    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()>;

    /// Releases the claim on a delivery that failed.
    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()>;

    /// Deletes up to `limit` deliveries completed before `before`, and returns their number.
    async fn purge_deliveries(&self, before: Timestamp, limit: i64) -> Result<u64>;
}
