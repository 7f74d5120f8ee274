//! Recipients of notifications, and the record of deliveries.

use std::{num::NonZeroU32, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;

use super::{
    PostgresStore,
    calls::{ClaimDelivery, CompleteDelivery},
    connections::Params,
};
use crate::{
    domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, NotifiedEvent, Recipient, UserId},
    store::{
        DeliveryStore, Result,
        outbox::lease_end,
        rows::{self, Utc},
        sql::{
            CLAIM_EVENT, FIND_DELIVERY, PURGE_DELIVERIES, PURGE_EVENTS, RELEASE_DELIVERY, select_recipients,
        },
    },
};

/// Serializes claims of the same author's events. It is a separate statement, so that a claim sees the claims
/// committed while it waited for the lock.
const LOCK_AUTHOR: Statement = Statement::new(
    "SELECT",
    "",
    "SELECT pg_advisory_xact_lock",
    "SELECT pg_advisory_xact_lock(hashtextextended('pressroom notified events', $1))",
);

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

    async fn claim_event(
        &self,
        event: &NotifiedEvent,
        now: Timestamp,
        author_limit: Option<NonZeroU32>,
    ) -> Result<bool> {
        let claim: Params<'_> = &[
            &event.task_id,
            &event.author.0,
            &event.article.0,
            &event.event.as_str(),
            &Utc(now),
            &Utc(NotifiedEvent::limited_since(now)),
            &author_limit.map(|limit| i64::from(limit.get())),
        ];
        let claimed = self
            .primary
            .transaction(
                event.author.0,
                &[(&LOCK_AUTHOR, &[&i64::from(event.author.0)])],
                (&CLAIM_EVENT, claim),
            )
            .await?;
        Ok(!claimed.rows.is_empty())
    }

    async fn claim_delivery(
        &self,
        key: &DeliveryKey,
        now: Timestamp,
        lease: Duration,
    ) -> Result<DeliveryClaim> {
        let until = lease_end(now, lease);
        let claim = ClaimDelivery {
            key: key.clone(),
            until,
            now,
        };
        if self.groups.claimed_deliveries.run(&self.primary, claim).await? {
            return Ok(DeliveryClaim::Claimed);
        }
        let params: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel];
        let found = self.primary.read(&FIND_DELIVERY, params).await?;
        let found = found.first(|row| rows::delivery_claim(row, now))?;
        // A claim that was released between the two statements is available to the next caller.
        Ok(found.unwrap_or_else(|| DeliveryClaim::held(now, now)))
    }

    async fn complete_delivery(&self, key: &DeliveryKey, now: Timestamp) -> Result<()> {
        let delivery = CompleteDelivery {
            key: key.clone(),
            now,
        };
        Ok(self
            .groups
            .completed_deliveries
            .run(&self.primary, delivery)
            .await?)
    }

    async fn release_delivery(&self, key: &DeliveryKey, until: Timestamp) -> Result<()> {
        let params: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel, &Utc(until)];
        self.primary.maintain(&RELEASE_DELIVERY, params).await?;
        Ok(())
    }

    async fn purge_deliveries(&self, before: Timestamp, limit: i64) -> Result<u64> {
        let params: Params<'_> = &[&Utc(before), &limit];
        let events = self.primary.maintain(&PURGE_EVENTS, params).await?;
        let purged = self.primary.maintain(&PURGE_DELIVERIES, params).await?;
        Ok(events.affected + purged.affected)
    }
}
