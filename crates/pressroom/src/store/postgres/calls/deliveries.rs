//! Claims and completions of deliveries.

use std::collections::HashSet;

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    domain::DeliveryKey,
    store::{
        postgres::{
            connections::{Call, Params, Primary},
            error::StatementError,
        },
        rows::Utc,
        sql::statement,
    },
};

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
pub(in crate::store::postgres) struct ClaimDelivery {
    pub(in crate::store::postgres) key: DeliveryKey,
    pub(in crate::store::postgres) until: Timestamp,
    pub(in crate::store::postgres) now: Timestamp,
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
pub(in crate::store::postgres) struct CompleteDelivery {
    pub(in crate::store::postgres) key: DeliveryKey,
    pub(in crate::store::postgres) now: Timestamp,
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
