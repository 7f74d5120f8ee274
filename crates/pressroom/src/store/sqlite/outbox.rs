//! Tasks that wait to be published. The transactions of [`super::articles`] insert them.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::params;
use serde_json::json;
use telemetry::Statement;

use super::{SqliteStore, connections::Transaction, error::StatementError};
use crate::{
    domain::{Backlog, NewOutboxTask, OutboxTask},
    store::{
        OutboxStore, Result, StoreError,
        outbox::lease_end,
        rows::{self, Id, Utc},
        sql::{OUTBOX_BACKLOG, RELEASE_ALL_OUTBOX, statement},
    },
};

const INSERT_OUTBOX: Statement = statement!(
    "INSERT outbox",
    "
        INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
);

const CLAIM_OUTBOX: Statement = statement!(
    "UPDATE outbox",
    "
        UPDATE outbox
        SET claimable_at = ?2, attempts = attempts + 1
        WHERE id IN (SELECT id FROM outbox WHERE claimable_at <= ?1 ORDER BY id LIMIT ?3)
        RETURNING id, task_id, name, args, trace, created_at, attempts",
);

const DELETE_OUTBOX: Statement = statement!(
    "DELETE outbox",
    "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?1))",
);

const RELEASE_OUTBOX: Statement = statement!(
    "UPDATE outbox",
    "
        UPDATE outbox
        SET claimable_at = ?1
        WHERE id IN (SELECT value FROM json_each(?2)) AND claimable_at = ?3",
);

/// Inserts the task of a change to `article`, within the transaction of that change.
pub(super) fn insert(db: &Transaction<'_>, task: &NewOutboxTask, article: i32) -> Result<(), StatementError> {
    let params = params![
        Id(task.task_id),
        task.name,
        json!([article, task.event.as_str()]).to_string(),
        rows::trace_column(&task.trace).to_string(),
        Utc(task.created_at),
    ];
    db.execute(&INSERT_OUTBOX, params)?;
    Ok(())
}

#[async_trait]
impl OutboxStore for SqliteStore {
    async fn claim_outbox(&self, now: Timestamp, lease: Duration, limit: i64) -> Result<Vec<OutboxTask>> {
        let until = lease_end(now, lease);
        self.write(&CLAIM_OUTBOX, move |db| {
            let params = params![Utc(now), Utc(until), limit.max(0)];
            let mut tasks = db.rows(&CLAIM_OUTBOX, params, |row| rows::outbox_task(row))?;
            // RETURNING does not guarantee an order.
            tasks.sort_by_key(|task| task.id);
            Ok(tasks)
        })
        .await
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<()> {
        self.execute(&DELETE_OUTBOX, (json!(ids).to_string(),)).await?;
        Ok(())
    }

    async fn release_outbox(&self, ids: &[i64], until: Timestamp, retry_at: Timestamp) -> Result<()> {
        let params = (Utc(retry_at), json!(ids).to_string(), Utc(until));
        self.execute(&RELEASE_OUTBOX, params).await?;
        Ok(())
    }

    async fn release_all_outbox(&self) -> Result<u64> {
        self.execute(&RELEASE_ALL_OUTBOX, ()).await
    }

    async fn outbox_backlog(&self) -> Result<Backlog> {
        let backlog = self.row(&OUTBOX_BACKLOG, (), |row| rows::backlog(row)).await?;
        backlog.ok_or_else(StoreError::no_row)
    }
}
