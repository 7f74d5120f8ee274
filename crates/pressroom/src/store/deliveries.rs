//! Recipients of notifications, and the record of deliveries.

use std::{fmt::Debug, num::NonZeroU32, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::Result;
use crate::domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, NotifiedEvent, Recipient, UserId};

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

    /// Returns whether readers may be notified of an event, and records the event if they may. Atomic. A task whose
    /// event is recorded may always continue.
    ///
    /// Readers are notified of one edit per article and hour, and of `author_limit` events per author and hour.
    async fn claim_event(
        &self,
        event: &NotifiedEvent,
        now: Timestamp,
        author_limit: Option<NonZeroU32>,
    ) -> Result<bool>;

    /// Claims one delivery for `lease`. Atomic.
    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim>;

    /// Records a delivery as completed, even if its claim no longer exists.
    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()>;

    /// Releases the claim on a failed delivery if the lease of the claim ends at `until`. Keeps the claim of another run,
    /// which may have claimed the delivery after that time.
    async fn release_delivery(&self, key: &DeliveryKey, until: Timestamp) -> Result<()>;

    /// Deletes up to `limit` deliveries completed before `before`, and up to `limit` events recorded before then.
    /// Returns the number of deleted rows.
    async fn purge_deliveries(&self, before: Timestamp, limit: i64) -> Result<u64>;
}
