//! Tasks that wait to be published. Rows come in with the article's own statement, see
//! [`super::articles`].

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use telemetry::Statement;
use tokio_postgres::Row;

use super::{connections::Connections, error::StatementError, value::Utc};
use crate::{
    store::outbox_row,
    tasks::{Backlog, OutboxTask},
};

pub(super) use crate::store::outbox_row::{TASK_NAME, trace_column};

fn task(row: &Row) -> Result<OutboxTask, StatementError> {
    let args: Value = row.try_get(3)?;
    let trace: Value = row.try_get(4)?;
    let Utc(created_at) = row.try_get(5)?;
    Ok(OutboxTask {
        id: row.try_get(0)?,
        task_id: row.try_get(1)?,
        name: row.try_get(2)?,
        args: outbox_row::args(args),
        trace: outbox_row::trace(trace),
        created_at,
        attempts: row.try_get(6)?,
    })
}

/// Rows that another process is claiming right now are passed over, not waited for.
const CLAIM_OUTBOX: Statement = Statement::new(
    "UPDATE",
    "outbox",
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

pub(super) async fn claim_outbox(
    store: &Connections,
    now: Timestamp,
    lease: Duration,
    limit: i64,
) -> Result<Vec<OutboxTask>, StatementError> {
    let until = now.saturating_add(lease).unwrap_or(Timestamp::MAX);
    let rows = store
        .rows(&CLAIM_OUTBOX, &[&Utc(now), &Utc(until), &limit.max(0)])
        .await?;
    rows.iter().map(task).collect()
}

const DELETE_OUTBOX: Statement = Statement::new(
    "DELETE",
    "outbox",
    "DELETE outbox",
    "DELETE FROM outbox WHERE id = ANY ($1)",
);

pub(super) async fn delete_outbox(store: &Connections, ids: &[i64]) -> Result<(), StatementError> {
    if !ids.is_empty() {
        store.execute(&DELETE_OUTBOX, &[&ids]).await?;
    }
    Ok(())
}

const RELEASE_OUTBOX: Statement = Statement::new(
    "UPDATE",
    "outbox",
    "UPDATE outbox",
    "UPDATE outbox SET claimable_at = $2 WHERE id = ANY ($1)",
);

pub(super) async fn release_outbox(
    store: &Connections,
    ids: &[i64],
    retry_at: Timestamp,
) -> Result<(), StatementError> {
    if !ids.is_empty() {
        store.execute(&RELEASE_OUTBOX, &[&ids, &Utc(retry_at)]).await?;
    }
    Ok(())
}

const RELEASE_ALL_OUTBOX: Statement = Statement::new(
    "UPDATE",
    "outbox",
    "UPDATE outbox",
    "UPDATE outbox SET claimable_at = created_at WHERE claimable_at <> created_at",
);

pub(super) async fn release_all_outbox(store: &Connections) -> Result<u64, StatementError> {
    store.sweep(&RELEASE_ALL_OUTBOX, &[]).await
}

const OUTBOX_BACKLOG: Statement = Statement::new(
    "SELECT",
    "outbox",
    "SELECT outbox",
    "SELECT count(*), min(created_at) FROM outbox",
);

pub(super) async fn outbox_backlog(store: &Connections) -> Result<Backlog, StatementError> {
    let rows = store.scan(&OUTBOX_BACKLOG, &[]).await?;
    let Some(row) = rows.first() else {
        return Err(StatementError::failed("a count gave no row"));
    };
    let oldest: Option<Utc> = row.try_get(1)?;
    Ok(Backlog {
        tasks: row.try_get(0)?,
        oldest: oldest.map(|Utc(oldest)| oldest),
    })
}
