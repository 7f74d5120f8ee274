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
            CLAIM_DELIVERY, COMPLETE_DELIVERY, FIND_DELIVERY, FOLLOWERS_OF_THE_ARTICLE,
            FOLLOWERS_OF_THE_AUTHOR, PURGE_DELIVERIES, RELEASE_DELIVERY,
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
        let statement = match event {
            ArticleEvent::Created => &FOLLOWERS_OF_THE_AUTHOR,
            ArticleEvent::Updated => &FOLLOWERS_OF_THE_ARTICLE,
        };
        let params: Params<'_> = &[&article.0, &after.0, &limit.max(0)];
        Ok(self
            .primary
            .run_slow(statement, params)
            .await?
            .all(rows::recipient)?)
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        let (task_id, recipient, channel) = (key.task_id, key.recipient.0, key.channel);
        let until = Utc(lease_end(now, lease));
        let claim: Params<'_> = &[&task_id, &recipient, &channel, &until, &Utc(now)];
        if !self.primary.run(&CLAIM_DELIVERY, claim).await?.rows.is_empty() {
            return Ok(DeliveryClaim::Claimed);
        }
        let held = self.primary.run(&FIND_DELIVERY, &claim[..3]).await?;
        Ok(match held.rows.first() {
            Some(row) if row.try_get("delivered")? => DeliveryClaim::Delivered,
            Some(row) => {
                let Utc(until) = row.try_get("claimed_until")?;
                DeliveryClaim::held(until, now)
            }
            // Released between the two statements: free for the next caller.
            None => DeliveryClaim::held(now, now),
        })
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        let params: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel, &Utc(now)];
        self.primary.run(&COMPLETE_DELIVERY, params).await?;
        Ok(())
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        let params: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel];
        self.primary.run(&RELEASE_DELIVERY, params).await?;
        Ok(())
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        let purged = self.primary.run_slow(&PURGE_DELIVERIES, &[&Utc(before)]).await?;
        Ok(purged.affected)
    }
}
