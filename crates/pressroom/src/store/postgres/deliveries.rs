//! Recipients of notifications, and the record of deliveries.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::PostgresStore;
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
        let rows = self
            .primary
            .rows_slow(statement, &[&article.0, &after.0, &limit.max(0)])
            .await?;
        Ok(rows.iter().map(rows::recipient).collect::<Result<_, _>>()?)
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        let DeliveryKey {
            task_id,
            recipient,
            channel,
        } = key;
        let until = Utc(lease_end(now, lease));
        let claimed = self
            .primary
            .row(
                &CLAIM_DELIVERY,
                &[task_id, &recipient.0, channel, &until, &Utc(now)],
            )
            .await?;
        if claimed.is_some() {
            return Ok(DeliveryClaim::Claimed);
        }
        let held = self
            .primary
            .row(&FIND_DELIVERY, &[task_id, &recipient.0, channel])
            .await?;
        Ok(match held {
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
        self.primary
            .execute(
                &COMPLETE_DELIVERY,
                &[&key.task_id, &key.recipient.0, &key.channel, &Utc(now)],
            )
            .await?;
        Ok(())
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        self.primary
            .execute(&RELEASE_DELIVERY, &[&key.task_id, &key.recipient.0, &key.channel])
            .await?;
        Ok(())
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        Ok(self
            .primary
            .execute_slow(&PURGE_DELIVERIES, &[&Utc(before)])
            .await?)
    }
}
