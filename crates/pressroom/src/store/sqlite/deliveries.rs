//! Recipients of notifications, and the record of deliveries.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::params;

use super::{SqliteStore, error::StatementError};
use crate::{
    domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, Recipient, UserId},
    store::{
        DeliveryStore, Result,
        outbox::lease_end,
        rows::{self, Id, Utc},
        sql::{
            CLAIM_DELIVERY, COMPLETE_DELIVERY, FIND_DELIVERY, FOLLOWERS_OF_THE_ARTICLE,
            FOLLOWERS_OF_THE_AUTHOR, PURGE_DELIVERIES, RELEASE_DELIVERY,
        },
    },
};

#[async_trait]
impl DeliveryStore for SqliteStore {
    async fn recipients(
        &self,
        article: ArticleId,
        event: ArticleEvent,
        after: UserId,
        limit: i64,
    ) -> Result<Vec<Recipient>> {
        let statement = match event {
            ArticleEvent::Created => FOLLOWERS_OF_THE_AUTHOR,
            ArticleEvent::Updated => FOLLOWERS_OF_THE_ARTICLE,
        };
        self.connections
            .read(&statement, move |db| {
                let params = params![article.0, after.0, limit.max(0)];
                db.rows(&statement, params, |row| rows::recipient(row))
            })
            .await
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        let (task_id, recipient, channel) = (Id(key.task_id), key.recipient.0, key.channel);
        let claim = self.connections.write(&CLAIM_DELIVERY, move |db| {
            let params = params![task_id, recipient, channel, Utc(lease_end(now, lease)), Utc(now)];
            if db.row(&CLAIM_DELIVERY, params, |_| Ok(()))?.is_some() {
                return Ok(Some(DeliveryClaim::Claimed));
            }
            db.row(&FIND_DELIVERY, params![task_id, recipient, channel], |row| {
                if row.get("delivered")? {
                    return Ok(DeliveryClaim::Delivered);
                }
                let Utc(until) = row.get("claimed_until")?;
                Ok(DeliveryClaim::held(until, now))
            })
        });
        let missing = || StatementError::failed("a delivery is neither free nor held");
        Ok(claim.await?.ok_or_else(missing)?)
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        let params = (Id(key.task_id), key.recipient.0, key.channel, Utc(now));
        self.connections.execute(&COMPLETE_DELIVERY, params).await?;
        Ok(())
    }

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        let params = (Id(key.task_id), key.recipient.0, key.channel);
        self.connections.execute(&RELEASE_DELIVERY, params).await?;
        Ok(())
    }

    async fn purge_deliveries(&self, before: Timestamp) -> Result<u64> {
        self.connections.execute(&PURGE_DELIVERIES, (Utc(before),)).await
    }
}
