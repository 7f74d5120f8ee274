//! Recipients of notifications, and the record of deliveries.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{PostgresStore, connections::Params};
use crate::{
    domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, Recipient, UserId},
    store::{
        DeliveryStore, Result,
        outbox::lease_end,
        rows::{self, Utc},
        sql::{
            CLAIM_DELIVERY, COMPLETE_DELIVERY, FIND_DELIVERY, PURGE_DELIVERIES, RELEASE_DELIVERY,
            select_recipients,
        },
    },
};

#[async_trait]
impl DeliveryStore for PostgresStore {
    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>> {
        let statement = select_recipients(event);
        let params: Params<'_> = &[&article.0, &after.0, &limit.max(0)];
        Ok(self
            .primary
            .maintain(statement, params)
            .await?
            .all(rows::recipient)?)
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        let until = Utc(lease_end(now, lease));
        let claim: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel, &until, &Utc(now)];
        if !self
            .primary
            .maintain(&CLAIM_DELIVERY, claim)
            .await?
            .rows
            .is_empty()
        {
            return Ok(DeliveryClaim::Claimed);
        }
        let found = self.primary.read(&FIND_DELIVERY, &claim[..3]).await?;
        let found = found.first(|row| rows::delivery_claim(row, now))?;
        // A claim that was released between the two statements is available to the next caller.
        Ok(found.unwrap_or_else(|| DeliveryClaim::held(now, now)))
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        let params: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel, &Utc(now)];
        self.primary.maintain(&COMPLETE_DELIVERY, params).await?;
        Ok(())
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        let params: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel];
        self.primary.maintain(&RELEASE_DELIVERY, params).await?;
        Ok(())
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        let purged = self.primary.maintain(&PURGE_DELIVERIES, &[&Utc(before)]).await?;
        Ok(purged.affected)
    }
}
