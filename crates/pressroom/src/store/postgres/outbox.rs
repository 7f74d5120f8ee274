//! Tasks that wait to be published. The statements of [`super::articles`] insert them.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;

use super::{PostgresStore, connections::Params};
use crate::{
    domain::{Backlog, OutboxTask},
    store::{
        OutboxStore, Result, StoreError,
        outbox::lease_end,
        rows::{self, Utc},
        sql::{OUTBOX_BACKLOG, RELEASE_ALL_OUTBOX, statement},
    },
};

/// Makes the commit of a statement asynchronous, in its `WITH` clause. If PostgreSQL crashes within a second, the statement
/// may have done nothing: the tasks are claimed and published again under the same ids. It is part of the statement,
/// because a setting of the session does not survive a pooler.
macro_rules! asynchronous_commit {
    () => {
        "(SELECT set_config('synchronous_commit', 'off', true)) AS asynchronous"
    };
}
pub(super) use asynchronous_commit;

/// Skips rows that another process is claiming instead of waiting for them.
const CLAIM_OUTBOX: Statement = statement!(
    "UPDATE outbox",
    "
        WITH claimed AS (
            UPDATE outbox
            SET claimable_at = $2, attempts = attempts + 1
            WHERE id = ANY (ARRAY(
                SELECT id
                FROM outbox
                WHERE claimable_at <= $1
                ORDER BY id
                LIMIT $3
                FOR UPDATE SKIP LOCKED
            ))
            RETURNING *
        )
        SELECT id, task_id, name, args, trace, created_at, attempts
        FROM claimed, ",
    asynchronous_commit!(),
    "
        ORDER BY id",
);

const DELETE_OUTBOX: Statement = statement!("DELETE outbox", "DELETE FROM outbox WHERE id = ANY ($1)",);

const RELEASE_OUTBOX: Statement = statement!(
    "UPDATE outbox",
    "UPDATE outbox SET claimable_at = $1 WHERE id = ANY ($2) AND claimable_at = $3",
);

#[async_trait]
impl OutboxStore for PostgresStore {
    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>> {
        let until = Utc(lease_end(now, lease));
        let params: Params<'_> = &[&Utc(now), &until, &limit.max(0)];
        let claimed = self.primary.maintain(&CLAIM_OUTBOX, params).await?;
        Ok(claimed.all(rows::outbox_task)?)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<()> {
        self.primary.maintain(&DELETE_OUTBOX, &[&ids]).await?;
        Ok(())
    }

    async fn release_outbox(&self, ids: &[i64], until: Timestamp, retry_at: Timestamp) -> Result<()> {
        let params: Params<'_> = &[&Utc(retry_at), &ids, &Utc(until)];
        self.primary.maintain(&RELEASE_OUTBOX, params).await?;
        Ok(())
    }

    async fn release_all_outbox(&self) -> Result<u64> {
        Ok(self.primary.maintain(&RELEASE_ALL_OUTBOX, &[]).await?.affected)
    }

    async fn outbox_backlog(&self) -> Result<Backlog> {
        let counted = self.primary.maintain(&OUTBOX_BACKLOG, &[]).await?;
        counted.first(rows::backlog)?.ok_or_else(StoreError::no_row)
    }
}
