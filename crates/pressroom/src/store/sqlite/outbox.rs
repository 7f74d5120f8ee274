//! Tasks that wait to be published. Rows come in with the article's change, see
//! [`super::articles`].

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Row, params};
use serde_json::{Value, json};
use telemetry::Statement;

use super::{
    connections::{Connections, Moment},
    error::StatementError,
    value::{Id, Utc},
};
use crate::{
    store::{StoreError, outbox_row},
    tasks::{Backlog, NewOutboxTask, OutboxTask},
};

fn task(row: &Row<'_>) -> rusqlite::Result<OutboxTask> {
    let Id(task_id) = row.get(1)?;
    let Utc(created_at) = row.get(5)?;
    let json = |column: String| serde_json::from_str(&column).unwrap_or(Value::Null);
    Ok(OutboxTask {
        id: row.get(0)?,
        task_id,
        name: row.get(2)?,
        args: outbox_row::args(json(row.get(3)?)),
        trace: outbox_row::trace(json(row.get(4)?)),
        created_at,
        attempts: row.get(6)?,
    })
}

const INSERT_OUTBOX: Statement = Statement::new(
    "INSERT",
    "outbox",
    "INSERT outbox",
    "
        INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
);

/// Writes the task of a change to `article`, within the transaction of that change.
pub(super) fn insert(db: &Moment<'_>, task: &NewOutboxTask, article: i32) -> Result<(), StatementError> {
    let params = params![
        Id(task.task_id),
        outbox_row::TASK_NAME,
        json!([article, task.event.as_str()]).to_string(),
        outbox_row::trace_column(&task.trace).to_string(),
        Utc(task.created_at),
    ];
    db.execute(&INSERT_OUTBOX, params)?;
    Ok(())
}

const CLAIM_OUTBOX: Statement = Statement::new(
    "UPDATE",
    "outbox",
    "UPDATE outbox",
    "
        UPDATE outbox
        SET claimable_at = ?2, attempts = attempts + 1
        WHERE id IN (SELECT id FROM outbox WHERE claimable_at <= ?1 ORDER BY id LIMIT ?3)
        RETURNING id, task_id, name, args, trace, created_at, attempts",
);

pub(super) async fn claim_outbox(
    store: &Connections,
    now: Timestamp,
    lease: Duration,
    limit: i64,
) -> Result<Vec<OutboxTask>, StatementError> {
    let until = now.saturating_add(lease).unwrap_or(Timestamp::MAX);
    let claimed = store.write(&CLAIM_OUTBOX, move |db| {
        let params = params![Utc(now), Utc(until), limit.max(0)];
        let mut tasks = db.rows(&CLAIM_OUTBOX, params, task)?;
        // RETURNING promises no order.
        tasks.sort_by_key(|task| task.id);
        Ok(tasks)
    });
    claimed.await
}

const DELETE_OUTBOX: Statement = Statement::new(
    "DELETE",
    "outbox",
    "DELETE outbox",
    "DELETE FROM outbox WHERE id = ?1",
);

pub(super) async fn delete_outbox(store: &Connections, ids: Vec<i64>) -> Result<(), StatementError> {
    let deleted = store.write(&DELETE_OUTBOX, move |db| {
        db.execute_each(&DELETE_OUTBOX, ids.into_iter().map(|id| [id]))?;
        Ok(())
    });
    deleted.await
}

const RELEASE_OUTBOX: Statement = Statement::new(
    "UPDATE",
    "outbox",
    "UPDATE outbox",
    "UPDATE outbox SET claimable_at = ?2 WHERE id = ?1",
);

pub(super) async fn release_outbox(
    store: &Connections,
    ids: Vec<i64>,
    retry_at: Timestamp,
) -> Result<(), StatementError> {
    let released = store.write(&RELEASE_OUTBOX, move |db| {
        db.execute_each(&RELEASE_OUTBOX, ids.into_iter().map(|id| (id, Utc(retry_at))))?;
        Ok(())
    });
    released.await
}

const RELEASE_ALL_OUTBOX: Statement = Statement::new(
    "UPDATE",
    "outbox",
    "UPDATE outbox",
    "UPDATE outbox SET claimable_at = created_at WHERE claimable_at <> created_at",
);

pub(super) async fn release_all_outbox(store: &Connections) -> Result<u64, StatementError> {
    let released = store.write(&RELEASE_ALL_OUTBOX, |db| {
        Ok(db.execute(&RELEASE_ALL_OUTBOX, [])? as u64)
    });
    released.await
}

const OUTBOX_BACKLOG: Statement = Statement::new(
    "SELECT",
    "outbox",
    "SELECT outbox",
    "SELECT count(*), min(created_at) FROM outbox",
);

pub(super) async fn outbox_backlog(store: &Connections) -> Result<Backlog, StoreError> {
    let counted = store.read(&OUTBOX_BACKLOG, |db| {
        let backlog = |row: &Row<'_>| {
            let oldest: Option<Utc> = row.get(1)?;
            Ok(Backlog {
                tasks: row.get(0)?,
                oldest: oldest.map(|Utc(oldest)| oldest),
            })
        };
        db.row(&OUTBOX_BACKLOG, [], backlog)
    });
    counted
        .await?
        .ok_or_else(|| StoreError::Failed("a count gave no row".to_owned()))
}
