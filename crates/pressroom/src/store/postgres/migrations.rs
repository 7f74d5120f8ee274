//! Migrates the schema, and reads its version.

use std::{error::Error as _, time::Duration};

use futures_util::TryFutureExt;
use refinery_core::{
    AsyncMigrate, Migration,
    traits::r#async::{AsyncQuery, AsyncTransaction},
};
use telemetry::Statement;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};

use super::{
    config::{PostgresConfig, Role},
    connections::{Connections, Connector, Settings},
    error::StatementError,
};
use crate::store::{Access, DatabaseState, Migrated, SchemaVersion, StoreError, sql::NEWEST_MIGRATION};

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Maximum duration of one migration, which may build an index on a large table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Maximum wait for a table. Short, because a migration that waits for a table behind a long transaction blocks
/// all later statements on that table.
const TABLE_LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum wait for another process that is migrating.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Maximum duration of the wait and all migrations together.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Creates the schema, adopts the reference implementation's schema, or upgrades an earlier one.
///
/// Leaves a schema that is newer than this release unchanged. If several processes start together, one migrates
/// and the others wait. While an index is built on a table in use, reads of the table continue and writes wait.
///
/// # Errors
/// [`StoreError::Unavailable`] if the database is unreachable or a table remains locked for five seconds;
/// [`StoreError::Failed`] if the database rejects a migration. Earlier migrations remain applied.
#[expect(
    clippy::disallowed_methods,
    reason = "no request waits for a migration, and the statements come from the migration files"
)]
pub async fn migrate(config: &PostgresConfig) -> Result<Migrated, StoreError> {
    let settings = Settings {
        statement_timeout: STATEMENT_TIMEOUT,
        lock_timeout: TABLE_LOCK_TIMEOUT,
        scans: true,
    };
    let connector = Connector::new(config, Role::Primary, settings)
        .map_err(|error| StoreError::Failed(error.to_string()))?;
    let open = || connector.open_in_time().map_err(StoreError::Unavailable);
    let (lock, lock_driver) = open().await?;
    let (client, driver) = open().await?;
    let work = async {
        // The lock belongs to an open transaction, so it is released when the connection closes, even behind
        // a pooler.
        let wait = format!(
            "BEGIN;
            SET LOCAL lock_timeout TO '{timeout}s';
            SET LOCAL statement_timeout TO '{timeout}s';
            SET LOCAL idle_in_transaction_session_timeout TO 0;
            SELECT pg_advisory_xact_lock(hashtextextended('pressroom migrations', 0))",
            timeout = LOCK_TIMEOUT.as_secs()
        );
        lock.batch_execute(&wait).await?;
        let newer = applied_version(&client).await?;
        let newer = newer.filter(|applied| *applied > newest());
        if newer.is_some() {
            let applied = Vec::new();
            return Ok(Migrated { applied, newer });
        }
        let report = embedded::migrations::runner()
            .run_async(&mut Target(client))
            .await;
        let report = report.map_err(|error| store_error(&error))?;
        lock.batch_execute("COMMIT").await?;
        let applied = report.applied_migrations().iter().map(ToString::to_string);
        Ok(Migrated {
            applied: applied.collect(),
            newer,
        })
    };
    let migrated = timeout(TIMEOUT, work).await.unwrap_or_else(|_elapsed| {
        Err(StoreError::Unavailable(
            "the migrations did not finish within an hour".to_owned(),
        ))
    });
    driver.abort();
    lock_driver.abort();
    migrated
}

/// Returns the version of the newest applied migration, or `None` without a schema.
#[expect(
    clippy::disallowed_methods,
    reason = "no request waits for a migration, and the statement is a constant"
)]
async fn applied_version(client: &Client) -> Result<Option<i64>, tokio_postgres::Error> {
    let messages = match client.simple_query(NEWEST_MIGRATION.text).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(None),
        messages => messages?,
    };
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    }))
}

/// Connection for the migrations, each of which runs in a transaction with its own settings.
struct Target(Client);

impl AsyncTransaction for Target {
    type Error = tokio_postgres::Error;

    #[expect(
        clippy::disallowed_methods,
        reason = "no request waits for a migration, and the statements come from the migration files"
    )]
    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        statements: T,
    ) -> Result<usize, Self::Error> {
        let settings = format!(
            "SET LOCAL statement_timeout TO '{}s'; SET LOCAL lock_timeout TO '{}s'",
            STATEMENT_TIMEOUT.as_secs(),
            TABLE_LOCK_TIMEOUT.as_secs()
        );
        let transaction = self.0.transaction().await?;
        transaction.batch_execute(&settings).await?;
        let mut count = 0;
        for statement in statements {
            transaction.batch_execute(statement).await?;
            count += 1;
        }
        transaction.commit().await?;
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for Target {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, tokio_postgres::Error> {
        AsyncQuery::query(&mut self.0, query).await
    }
}

impl AsyncMigrate for Target {}

fn store_error(error: &refinery::Error) -> StoreError {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    match cause.and_then(tokio_postgres::Error::as_db_error) {
        Some(cause) if *cause.code() == SqlState::LOCK_NOT_AVAILABLE => {
            StoreError::Unavailable(format!("{error}: {}", cause.message()))
        }
        Some(cause) => StoreError::Failed(format!("{error}: {} {}", cause.code().code(), cause.message())),
        None => StoreError::Failed(error.to_string()),
    }
}

/// Returns the version of the newest migration in this release.
fn newest() -> i64 {
    let runner = embedded::migrations::runner();
    let versions = runner.get_migrations().iter().map(refinery::Migration::version);
    versions.max().map_or(0, i64::from)
}

const DATABASE_STATE: Statement = Statement::new(
    "SELECT",
    "",
    "SELECT transaction_read_only",
    "SELECT to_regclass('refinery_schema_history') IS NOT NULL AS has_schema,
        current_setting('transaction_read_only') = 'on' AS read_only,
        pg_is_in_recovery() AS standby,
        (
            SELECT bool_and(coalesce(has_table_privilege(to_regclass(name), 'INSERT'), false))
            FROM unnest(ARRAY[
                'users', 'articles', 'favorites', 'outbox', 'revoked_tokens', 'ended_sessions', 'idempotency_keys',
                'article_count_changes'
            ]) AS name
        ) AS may_write",
);

/// Reads the version of the schema, and whether the database accepts writes to the tables that requests write to.
pub(super) async fn database_state(store: &Connections) -> Result<DatabaseState, StatementError> {
    let state = store.read(&DATABASE_STATE, &[]).await?;
    let state = state.first(|row| {
        let access = if row.try_get("standby")? {
            Access::Standby
        } else if row.try_get("read_only")? {
            Access::ReadOnly
        } else if row.try_get("may_write")? {
            Access::ReadWrite
        } else {
            Access::Denied
        };
        Ok((row.try_get("has_schema")?, access))
    })?;
    let (has_schema, access) = state.ok_or_else(StoreError::no_row)?;
    let applied: Option<Option<i32>> = if has_schema {
        let newest = store.read(&NEWEST_MIGRATION, &[]).await?;
        newest.first(|row| row.try_get("version"))?
    } else {
        None
    };
    let schema = SchemaVersion {
        applied: applied.flatten().map(i64::from),
        needed: newest(),
    };
    Ok(DatabaseState { schema, access })
}
