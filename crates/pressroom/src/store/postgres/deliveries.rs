//! Recipients of notifications, and the record of deliveries.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    PostgresStore,
    connections::{Call, Params, Primary},
    error::StatementError,
};
use crate::{
    domain::{ArticleEvent, ArticleId, DeliveryClaim, DeliveryKey, NotifiedEvent, Recipient, UserId},
    store::{
        DeliveryStore, Result,
        outbox::lease_end,
        rows::{self, Utc},
        sql::{
            CLAIM_EVENT, FIND_DELIVERY, PURGE_DELIVERIES, PURGE_EVENTS, RELEASE_DELIVERY, select_recipients,
            statement,
        },
    },
};

/// Serializes claims of the same author's events. It is a separate statement, so that a claim sees the claims
/// committed while it waited for the lock.
const LOCK_AUTHOR: Statement = Statement::new(
    "SELECT",
    "notified_events",
    "SELECT pg_advisory_xact_lock",
    "SELECT pg_advisory_xact_lock(hashtextextended('pressroom notified events', $1))",
);

/// Returns the deliveries that may be made: those that were not claimed, and those whose lease has expired. Rows are
/// locked in the order of their keys, so that the statements of several processes cannot deadlock.
const CLAIM_DELIVERIES: Statement = statement!(
    "INSERT notification_deliveries",
    "
        INSERT INTO notification_deliveries AS held (task_id, recipient_id, channel, claimed_until)
        SELECT task_id, recipient_id, channel, claimed_until
        FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamp[])
            AS claim (task_id, recipient_id, channel, claimed_until)
        ORDER BY task_id, recipient_id, channel
        ON CONFLICT (task_id, recipient_id, channel) DO UPDATE
        SET claimed_until = excluded.claimed_until
        WHERE held.delivered_at IS NULL AND held.claimed_until <= $5
        RETURNING task_id, recipient_id, channel",
);

/// Inserts rows whose claim no longer exists, because every completed delivery must be recorded.
const COMPLETE_DELIVERIES: Statement = statement!(
    "INSERT notification_deliveries",
    "
        INSERT INTO notification_deliveries
            (task_id, recipient_id, channel, claimed_until, delivered_at)
        SELECT task_id, recipient_id, channel, delivered_at, delivered_at
        FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamp[])
            AS delivery (task_id, recipient_id, channel, delivered_at)
        ORDER BY task_id, recipient_id, channel
        ON CONFLICT (task_id, recipient_id, channel) DO UPDATE
        SET delivered_at = excluded.delivered_at",
);

/// A delivery to claim.
#[derive(Debug, Clone)]
pub(super) struct ClaimDelivery {
    key: DeliveryKey,
    until: Timestamp,
    now: Timestamp,
}

#[async_trait]
impl Call for ClaimDelivery {
    /// Whether the caller may deliver.
    type Answer = bool;
    const STATEMENT: Statement = CLAIM_DELIVERIES;

    fn conflicts(&self, other: &Self) -> bool {
        self.key == other.key
    }

    async fn run(primary: &Primary, calls: &[Self], _start: Instant) -> Result<Vec<bool>, StatementError> {
        let keys = Keys::of(calls.iter().map(|call| &call.key));
        let until: Vec<Utc> = calls.iter().map(|call| Utc(call.until)).collect();
        // With the earliest time, no lease ends early.
        let now = calls.iter().map(|call| call.now).min().unwrap_or_default();
        let params: Params<'_> = &[&keys.tasks, &keys.recipients, &keys.channels, &until, &Utc(now)];
        let claimed = primary.run_maintenance(&Self::STATEMENT, params).await?;
        let mut claimed_keys = HashSet::new();
        for row in &claimed.rows {
            let key: (Uuid, i32, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            claimed_keys.insert(key);
        }
        let is_claimed = |call: &Self| {
            let DeliveryKey {
                task_id,
                recipient,
                channel,
            } = call.key;
            claimed_keys.contains(&(task_id, recipient.0, channel))
        };
        Ok(calls.iter().map(is_claimed).collect())
    }
}

/// A delivery to record as completed.
#[derive(Debug, Clone)]
pub(super) struct CompleteDelivery {
    key: DeliveryKey,
    now: Timestamp,
}

#[async_trait]
impl Call for CompleteDelivery {
    type Answer = ();
    const STATEMENT: Statement = COMPLETE_DELIVERIES;

    fn conflicts(&self, other: &Self) -> bool {
        self.key == other.key
    }

    async fn run(primary: &Primary, calls: &[Self], _start: Instant) -> Result<Vec<()>, StatementError> {
        let keys = Keys::of(calls.iter().map(|call| &call.key));
        let now: Vec<Utc> = calls.iter().map(|call| Utc(call.now)).collect();
        let params: Params<'_> = &[&keys.tasks, &keys.recipients, &keys.channels, &now];
        primary.run_maintenance(&Self::STATEMENT, params).await?;
        Ok(vec![(); calls.len()])
    }
}

/// Keys of deliveries, as one array for each column.
#[derive(Default)]
struct Keys {
    tasks: Vec<Uuid>,
    recipients: Vec<i32>,
    channels: Vec<&'static str>,
}

impl Keys {
    fn of<'a>(keys: impl Iterator<Item = &'a DeliveryKey>) -> Self {
        let mut columns = Self::default();
        for key in keys {
            columns.tasks.push(key.task_id);
            columns.recipients.push(key.recipient.0);
            columns.channels.push(key.channel);
        }
        columns
    }
}

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

    async fn release_delivery(&self, key: &DeliveryKey) -> Result<()> {
        let params: Params<'_> = &[&key.task_id, &key.recipient.0, &key.channel];
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
