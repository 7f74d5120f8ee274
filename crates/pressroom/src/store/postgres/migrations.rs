//! Migrates the schema, and reads its version. Requests continue meanwhile: indexes of existing tables are built
//! concurrently, and the other statements of a migration need each lock only for a moment.

use std::{error::Error as _, time::Duration};

use futures_util::TryFutureExt;
use refinery_core::{
    AsyncMigrate, Migration,
    traits::r#async::{AsyncQuery, AsyncTransaction},
};
use telemetry::Statement;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, error::SqlState};

use super::{
    config::{PostgresConfig, Role},
    connections::{Connections, Connector, Settings},
    error::StatementError,
    indexes,
};
use crate::store::{Access, DatabaseState, Migrated, SchemaVersion, StoreError, sql::NEWEST_MIGRATION};

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Maximum duration of one migration, which may build an index on a large table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Maximum wait for a table in one attempt. Short, because a migration that waits for a table behind a long transaction
/// blocks all later statements on that table.
const TABLE_LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// Pause between two attempts, in which the blocked statements can proceed.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum duration of all attempts.
const ATTEMPTS_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum wait for another process that is migrating.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Interval at which another process that is migrating is checked for. A statement that waits for its lock would delay the
/// concurrent build of an index until the statement ends, and therefore forever.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum duration of the wait and all migrations together.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

const TRY_LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('pressroom migrations', 0))";

/// Creates the schema, adopts the reference implementation's schema, or upgrades an earlier one.
///
/// Leaves a schema that is newer than this release unchanged. If several processes start together, one migrates
/// and the others wait. Requests to a table in use wait for at most 0.2 s at a time.
///
/// # Errors
/// [`StoreError::Unavailable`] if the database is unreachable or other transactions keep a table locked for 20 s;
/// [`StoreError::Failed`] if the database rejects a migration. Earlier migrations remain applied.
#[expect(
    clippy::disallowed_methods,
    reason = "no request waits for a migration, and the statements come from the migration files"
)]
pub async fn migrate(config: &PostgresConfig) -> Result<Migrated, StoreError> {
    let settings = Settings {
        statement_timeout: STATEMENT_TIMEOUT,
        // For concurrent builds of indexes, which block nothing while they wait.
        lock_timeout: STATEMENT_TIMEOUT,
        scans: true,
    };
    let connector = Connector::new(config, Role::Primary, settings)
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let open = || connector.open_in_time().map_err(StoreError::Unavailable);
    let (lock, lock_driver) = open().await?;
    let (client, driver) = open().await?;
    let work = async {
        // The lock belongs to an open transaction, so it is released when the connection closes, even behind
        // a pooler. At this isolation level, the transaction has no snapshot between statements, so that the
        // build of an index does not wait for it.
        lock.batch_execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout TO 0",
        )
        .await?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        while indexes::first(&lock, TRY_LOCK).await?.as_deref() != Some("t") {
            if Instant::now() >= deadline {
                return Err(StoreError::Unavailable(
                    "another process has been migrating the schema for 20 minutes".to_owned(),
                ));
            }
            sleep(LOCK_INTERVAL).await;
        }
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
async fn applied_version(client: &Client) -> Result<Option<i64>, tokio_postgres::Error> {
    match indexes::first(client, NEWEST_MIGRATION.text).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        newest => Ok(newest?.and_then(|newest| newest.parse().ok())),
    }
}

/// Connection for the migrations.
///
/// The indexes of a migration are built first. The rest runs in one transaction, which is repeated if it cannot lock a
/// table.
struct Target(Client);

impl AsyncTransaction for Target {
    type Error = tokio_postgres::Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        statements: T,
    ) -> Result<usize, Self::Error> {
        let mut scripts = Vec::new();
        for script in statements {
            scripts.push(indexes::execute_index_statements(&self.0, script).await?);
        }
        let deadline = Instant::now() + ATTEMPTS_TIMEOUT;
        loop {
            match self.transact(&scripts).await {
                Err(error)
                    if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && Instant::now() < deadline =>
                {
                    sleep(ATTEMPT_INTERVAL).await;
                }
                result => return result.map(|()| scripts.len()),
            }
        }
    }
}

impl Target {
    #[expect(
        clippy::disallowed_methods,
        reason = "no request waits for a migration, and the statements come from the migration files"
    )]
    async fn transact(&mut self, scripts: &[String]) -> Result<(), tokio_postgres::Error> {
        let settings = format!(
            "SET LOCAL statement_timeout TO '{}s'; SET LOCAL lock_timeout TO '{}ms'",
            STATEMENT_TIMEOUT.as_secs(),
            TABLE_LOCK_TIMEOUT.as_millis()
        );
        let transaction = self.0.transaction().await?;
        transaction.batch_execute(&settings).await?;
        for script in scripts {
            transaction.batch_execute(script).await?;
        }
        transaction.commit().await
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
    let state = store.read_for_check(&DATABASE_STATE).await?;
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
        let newest = store.read_for_check(&NEWEST_MIGRATION).await?;
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
