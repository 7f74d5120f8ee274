//! Recipients of notifications, and the record of deliveries.

use std::{num::NonZeroU32, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::params;
use telemetry::Statement;

use super::SqliteStore;
use crate::{
    domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, NotifiedEvent, Recipient, UserId},
    store::{
        DeliveryStore, Result, StoreError,
        outbox::lease_end,
        rows::{self, Id, Utc},
        sql::{
            CLAIM_EVENT, FIND_DELIVERY, PURGE_DELIVERIES, PURGE_EVENTS, RELEASE_DELIVERY, select_recipients,
            statement,
        },
    },
};

/// Returns a row only to a caller that may deliver: the first one, or the first one after the lease expired.
/// `$4` is the end of the new lease, and `$5` the current time.
const CLAIM_DELIVERY: Statement = statement!(
    "INSERT notification_deliveries",
    "
        INSERT INTO notification_deliveries AS held (task_id, recipient_id, channel, claimed_until)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (task_id, recipient_id, channel) DO UPDATE
        SET claimed_until = excluded.claimed_until
        WHERE held.delivered_at IS NULL AND held.claimed_until <= $5
        RETURNING true",
);

/// Inserts the row if the claim no longer exists, because every completed delivery must be recorded.
const COMPLETE_DELIVERY: Statement = statement!(
    "INSERT notification_deliveries",
    "
        INSERT INTO notification_deliveries
            (task_id, recipient_id, channel, claimed_until, delivered_at)
        VALUES ($1, $2, $3, $4, $4)
        ON CONFLICT (task_id, recipient_id, channel) DO UPDATE
        SET delivered_at = excluded.delivered_at",
);

#[async_trait]
impl DeliveryStore for SqliteStore {
    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>> {
        let statement = select_recipients(event);
        self.read(statement, move |db| {
            let params = params![article.0, after.0, limit.max(0)];
            db.rows(statement, params, |row| rows::recipient(row))
        })
        .await
    }

    async fn claim_event(
        &self,
        event: &NotifiedEvent,
        now: Timestamp,
        author_limit: Option<NonZeroU32>,
    ) -> Result<bool> {
        let event = *event;
        let claimed = self.write(&CLAIM_EVENT, move |db| {
            let params = params![
                Id(event.task_id),
                event.author.0,
                event.article.0,
                event.event.as_str(),
                Utc(now),
                Utc(NotifiedEvent::limited_since(now)),
                author_limit.map(|limit| i64::from(limit.get())),
            ];
            db.row(&CLAIM_EVENT, params, |_| Ok(()))
        });
        Ok(claimed.await?.is_some())
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        let (task_id, recipient, channel) = (Id(key.task_id), key.recipient.0, key.channel);
        let claim = self.write(&CLAIM_DELIVERY, move |db| {
            let params = params![task_id, recipient, channel, Utc(lease_end(now, lease)), Utc(now)];
            if db.row(&CLAIM_DELIVERY, params, |_| Ok(()))?.is_some() {
                return Ok(Some(DeliveryClaim::Claimed));
            }
            let key = params![task_id, recipient, channel];
            db.row(&FIND_DELIVERY, key, |row| rows::delivery_claim(row, now))
        });
        claim.await?.ok_or_else(StoreError::no_row)
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        let params = (Id(key.task_id), key.recipient.0, key.channel, Utc(now));
        self.execute(&COMPLETE_DELIVERY, params).await?;
        Ok(())
    }

    async fn release_delivery(&self, key: &DeliveryKey, until: Timestamp) -> Result<()> {
        let params = (Id(key.task_id), key.recipient.0, key.channel, Utc(until));
        self.execute(&RELEASE_DELIVERY, params).await?;
        Ok(())
    }

    async fn purge_deliveries(&self, before: Timestamp, limit: i64) -> Result<u64> {
        let events = self.execute(&PURGE_EVENTS, (Utc(before), limit)).await?;
        Ok(events + self.execute(&PURGE_DELIVERIES, (Utc(before), limit)).await?)
    }
}
