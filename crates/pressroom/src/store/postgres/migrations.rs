//! Migrates the schema, and checks whether it is current.

use std::{error::Error as _, time::Duration};

use futures_util::TryFutureExt;
use refinery_core::{
    AsyncMigrate, Migration,
    traits::r#async::{AsyncQuery, AsyncTransaction},
};
use tokio::time::timeout;
use tokio_postgres::{Client, error::SqlState};

use super::{
    config::{PostgresConfig, Role},
    connections::{Connections, Connector, Timeouts},
    error::StatementError,
};
use crate::store::{StoreError, sql::NEWEST_MIGRATION};

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
/// Returns the names of the applied migrations, or none if the schema was current. If several processes start
/// together, one migrates and the others wait. While an index is built on a table in use, reads of the table
/// continue and writes wait.
///
/// # Errors
/// [`StoreError::Unavailable`] if the database is unreachable or a table remains locked for five seconds;
/// [`StoreError::Failed`] if the database rejects a migration. Earlier migrations remain applied.
#[expect(
    clippy::disallowed_methods,
    reason = "no request waits for a migration, and the statements come from the migration files"
)]
pub async fn migrate(config: &PostgresConfig) -> Result<Vec<String>, StoreError> {
    config.log_ignored_parameters();
    let timeouts = Timeouts {
        statement: STATEMENT_TIMEOUT,
        lock: TABLE_LOCK_TIMEOUT,
    };
    let connector = Connector::new(config, Role::Primary, timeouts)
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
        let report = embedded::migrations::runner()
            .run_async(&mut Target(client))
            .await;
        let report = report.map_err(|error| store_error(&error))?;
        lock.batch_execute("COMMIT").await?;
        Ok(report
            .applied_migrations()
            .iter()
            .map(ToString::to_string)
            .collect())
    };
    let applied = timeout(TIMEOUT, work).await.unwrap_or_else(|_elapsed| {
        Err(StoreError::Unavailable(
            "the migrations did not finish within an hour".to_owned(),
        ))
    });
    driver.abort();
    lock_driver.abort();
    applied
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

/// Returns whether the schema has every migration that this program needs.
///
/// A newer schema is also current: migrations only add to it, and the previous release must remain ready
/// during a roll-out.
pub(super) async fn schema_is_current(store: &Connections) -> Result<bool, StatementError> {
    let newest = match store.read(&NEWEST_MIGRATION, &[]).await {
        Err(error) if error.is(&SqlState::UNDEFINED_TABLE) => return Ok(false),
        newest => newest?,
    };
    let applied: Option<Option<i32>> = newest.first(|row| row.try_get("version"))?;
    let newest = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max();
    Ok(applied.flatten().map(i64::from) >= newest.map(i64::from))
}
