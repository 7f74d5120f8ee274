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
        sql::{DELETE_OUTBOX, OUTBOX_BACKLOG, RELEASE_ALL_OUTBOX, RELEASE_OUTBOX, statement},
    },
};

/// Skips rows that another process is claiming instead of waiting for them.
const CLAIM_OUTBOX: Statement = statement!(
    "UPDATE outbox",
    "
        WITH waiting AS (
            SELECT id
            FROM outbox
            WHERE claimable_at <= $1
            ORDER BY id
            LIMIT $3
            FOR UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE outbox
            SET claimable_at = $2, attempts = attempts + 1
            FROM waiting
            WHERE outbox.id = waiting.id
            RETURNING outbox.*
        )
        SELECT id, task_id, name, args, trace, created_at, attempts
        FROM claimed
        ORDER BY id",
);

#[async_trait]
impl OutboxStore for PostgresStore {
    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>> {
        let until = Utc(lease_end(now, lease));
        let params: Params<'_> = &[&Utc(now), &until, &limit.max(0)];
        let claimed = self.primary.maintain(&CLAIM_OUTBOX, params).await?;
        Ok(claimed.all(rows::outbox_task)?)
    }

    async fn delete_outbox(&self, id: i64) -> Result<()> {
        self.primary.maintain(&DELETE_OUTBOX, &[&id]).await?;
        Ok(())
    }

    async fn release_outbox(&self, id: i64, retry_at: Timestamp) -> Result<()> {
        self.primary
            .maintain(&RELEASE_OUTBOX, &[&Utc(retry_at), &id])
            .await?;
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
