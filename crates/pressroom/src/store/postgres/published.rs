//! Published tasks, which are recorded until they have finished because the broker may lose them.

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;

use super::{PostgresStore, connections::Params, outbox::asynchronous_commit};
use crate::{
    domain::{PublishedBatch, PublishedTask},
    store::{
        PublishedTaskStore, Result,
        rows::{self, Utc},
        sql::statement,
    },
};

const RECORD_PUBLISHED: Statement = statement!(
    "INSERT published_tasks",
    "
        WITH published AS (
            DELETE FROM outbox
            WHERE id = ANY ($1)
            RETURNING id, task_id, name, args, trace, created_at, sends
        )
        INSERT INTO published_tasks
            (id, task_id, name, args, trace, created_at, sends, log_id, batch, published_at)
        SELECT id, task_id, name, args, trace, created_at, sends + 1, $2, $3, $4
        FROM published, ",
    asynchronous_commit!(),
);

const PUBLISHED_TASKS: Statement = statement!(
    "SELECT published_tasks",
    "
        SELECT id, task_id, sends, log_id, batch, published_at
        FROM published_tasks
        WHERE id > $1
        ORDER BY id
        LIMIT $2",
);

/// Keeps the id of each row, so that the oldest tasks are published first. Compares `sends`, because another
/// process may have moved a row back and published it again since it was read.
const REPUBLISH: Statement = statement!(
    "INSERT outbox",
    "
        WITH lost AS (
            DELETE FROM published_tasks
            WHERE (id, sends) IN (SELECT * FROM unnest($1::bigint[], $2::integer[]))
            RETURNING id, task_id, name, args, trace, created_at, sends
        )
        INSERT INTO outbox (id, task_id, name, args, trace, created_at, claimable_at, sends)
        OVERRIDING SYSTEM VALUE
        SELECT id, task_id, name, args, trace, created_at, $3, sends
        FROM lost",
);

const DELETE_PUBLISHED: Statement = statement!(
    "DELETE published_tasks",
    "
        DELETE FROM published_tasks
        USING ",
    asynchronous_commit!(),
    "
        WHERE (id, sends) IN (SELECT * FROM unnest($1::bigint[], $2::integer[]))",
);

#[async_trait]
impl PublishedTaskStore for PostgresStore {
    async fn record_published(&self, ids: &[i64], batch: PublishedBatch, now: Timestamp) -> Result<()> {
        let params: Params<'_> = &[&ids, &batch.log, &batch.number, &Utc(now)];
        self.primary.maintain(&RECORD_PUBLISHED, params).await?;
        Ok(())
    }

    async fn published_tasks(&self, after: i64, limit: i64) -> Result<Vec<PublishedTask>> {
        let params: Params<'_> = &[&after, &limit.max(0)];
        let tasks = self.primary.maintain(&PUBLISHED_TASKS, params).await?;
        Ok(tasks.all(rows::published_task)?)
    }

    async fn republish(&self, tasks: &[PublishedTask], now: Timestamp) -> Result<u64> {
        let (ids, sends) = publications(tasks);
        let params: Params<'_> = &[&ids, &sends, &Utc(now)];
        Ok(self.primary.maintain(&REPUBLISH, params).await?.affected)
    }

    async fn delete_published(&self, tasks: &[PublishedTask]) -> Result<()> {
        let (ids, sends) = publications(tasks);
        self.primary.maintain(&DELETE_PUBLISHED, &[&ids, &sends]).await?;
        Ok(())
    }
}

/// Returns the columns that identify each publication of a task: the row's id and its number of publications.
fn publications(tasks: &[PublishedTask]) -> (Vec<i64>, Vec<i32>) {
    tasks.iter().map(|task| (task.id, task.sends)).unzip()
}
