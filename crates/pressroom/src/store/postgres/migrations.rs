//! Brings the schema up to date, and checks whether it is.

use std::{error::Error as _, time::Duration};

use futures_util::TryFutureExt;
use refinery_core::{
    AsyncMigrate, Migration,
    traits::r#async::{AsyncQuery, AsyncTransaction},
};
use tokio::time::timeout;
use tokio_postgres::{Client, error::SqlState};

use super::{
    config::PostgresConfig,
    connections::{Connections, Connector},
    error::StatementError,
};
use crate::store::{StoreError, sql::NEWEST_MIGRATION};

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Maximum duration of one migration; an index on a large table is slow to build.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Maximum wait for another process that is migrating.
const TURN_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Maximum duration of the wait and all migrations.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Creates the schema, adopts one that the reference implementation made, or upgrades ours.
/// Returns the names of the applied migrations; none when the schema was current. Of several processes that
/// start at once one migrates and the others wait. While an index is built on a table in use, reads of the
/// table continue and writes wait.
///
/// # Errors
/// [`StoreError::Unavailable`] when the database cannot be reached or a table stays locked for five seconds;
/// [`StoreError::Failed`] when a migration is refused. Migrations applied before the error stay applied.
#[expect(
    clippy::disallowed_methods,
    reason = "no request waits for a migration, and its statements are the migrations' own"
)]
pub async fn migrate(config: &PostgresConfig) -> Result<Vec<String>, StoreError> {
    let connector =
        Connector::new(config, STATEMENT_TIMEOUT).map_err(|error| StoreError::Failed(error.to_string()))?;
    let open = || connector.open_in_time().map_err(StoreError::Unavailable);
    let (turn, turn_driver) = open().await?;
    let (client, driver) = open().await?;
    let work = async {
        // An open transaction holds the lock, so that it is released with the connection, through a pooler
        // too.
        let wait = format!(
            "BEGIN;
            SET LOCAL lock_timeout TO '{timeout}s';
            SET LOCAL statement_timeout TO '{timeout}s';
            SET LOCAL idle_in_transaction_session_timeout TO 0;
            SELECT pg_advisory_xact_lock(hashtextextended('pressroom migrations', 0))",
            timeout = TURN_TIMEOUT.as_secs()
        );
        turn.batch_execute(&wait).await?;
        let report = embedded::migrations::runner()
            .run_async(&mut Target(client))
            .await;
        let report = report.map_err(|error| refused(&error))?;
        turn.batch_execute("COMMIT").await?;
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
    turn_driver.abort();
    applied
}

/// The connection that migrations run on, each in a transaction with its own settings.
struct Target(Client);

impl AsyncTransaction for Target {
    type Error = tokio_postgres::Error;

    #[expect(
        clippy::disallowed_methods,
        reason = "no request waits for a migration, and its statements are the migrations' own"
    )]
    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        statements: T,
    ) -> Result<usize, Self::Error> {
        // The lock time-out is short: a migration that queues for a table behind a long transaction blocks
        // everything queueing behind it.
        let settings = format!(
            "SET LOCAL statement_timeout TO '{}s'; SET LOCAL lock_timeout TO '5s'",
            STATEMENT_TIMEOUT.as_secs()
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

fn refused(error: &refinery::Error) -> StoreError {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    match cause.and_then(tokio_postgres::Error::as_db_error) {
        Some(refusal) if *refusal.code() == SqlState::LOCK_NOT_AVAILABLE => {
            StoreError::Unavailable(format!("{error}: {}", refusal.message()))
        }
        Some(refusal) => StoreError::Failed(format!(
            "{error}: {} {}",
            refusal.code().code(),
            refusal.message()
        )),
        None => StoreError::Failed(error.to_string()),
    }
}

/// Returns whether the schema has every migration that this program needs.
///
/// A newer schema is current too: migrations only add, and the previous release must stay ready while a new
/// one rolls out.
pub(super) async fn schema_is_current(store: &Connections) -> Result<bool, StatementError> {
    let newest = match store.run(&NEWEST_MIGRATION, &[]).await {
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
