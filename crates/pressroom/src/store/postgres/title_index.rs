//! The trigram index for searches, which is optional: the extension `pg_trgm` may be missing, or the role may
//! lack the privilege to create it. Without the index, a search reads every title.
//!
//! The index is not part of a migration, because building it must neither block writers nor fail a migration.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use super::{
    config::{PostgresConfig, Role},
    connections::{Connector, Driver, Settings},
    indexes,
};
use crate::store::StoreError;

/// Maximum duration of one statement, including the wait for transactions that are older than the index.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Maximum duration of all statements together.
const TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// Allows one builder at a time. The lock belongs to an open transaction, so it is released when the
/// connection closes, even behind a pooler. Other processes do not wait for the lock, because the build would
/// wait for their transactions.
const LOCK: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL idle_in_transaction_session_timeout TO 0;
    SELECT pg_try_advisory_xact_lock(hashtextextended('pressroom title index', 0))";

/// Finds the schema of the extension, quoted, if it exists.
const FIND: &str = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_trgm'";

const CREATE_EXTENSION: &str = "CREATE EXTENSION IF NOT EXISTS pg_trgm";

/// State of the trigram index of titles after [`index_titles`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TitleIndex {
    /// The index already existed.
    Present,
    /// The index was built.
    Built,
    /// Another process is building the index.
    InProgress,
    /// The index cannot be built, for this reason.
    Unavailable(String),
}

/// Builds the trigram index of titles if it is missing, after creating the extension `pg_trgm` if necessary.
///
/// Requests are not blocked during the build. An index that an interrupted build left behind is replaced.
///
/// # Errors
/// [`StoreError`] if the database is unreachable or the schema is missing.
pub async fn index_titles(config: &PostgresConfig) -> Result<TitleIndex, StoreError> {
    let settings = Settings {
        statement_timeout: STATEMENT_TIMEOUT,
        lock_timeout: STATEMENT_TIMEOUT,
        scans: true,
    };
    let connector = Connector::new(config, Role::Primary, settings)
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let (lock, lock_driver) = connector.open_in_time().await.map_err(StoreError::Unavailable)?;
    let _lock_driver = Aborted(lock_driver);
    let (client, driver) = connector.open_in_time().await.map_err(StoreError::Unavailable)?;
    let _driver = Aborted(driver);
    timeout(TIMEOUT, build(&lock, &client))
        .await
        .unwrap_or_else(|_elapsed| {
            Err(StoreError::Unavailable(
                "the index of titles was not built in time".to_owned(),
            ))
        })
}

/// Aborts the task of a connection on drop, which closes the connection.
struct Aborted(Driver);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "no request waits for the index, and the statements are constants"
)]
async fn build(lock: &Client, client: &Client) -> Result<TitleIndex, StoreError> {
    if indexes::first(lock, LOCK).await?.as_deref() != Some("t") {
        return Ok(TitleIndex::InProgress);
    }
    let mut extension = indexes::first(client, FIND).await?;
    if extension.is_none() {
        if let Err(error) = client.batch_execute(CREATE_EXTENSION).await {
            return unavailable(error);
        }
        extension = indexes::first(client, FIND).await?;
    }
    let schema = extension.ok_or_else(StoreError::no_row)?;
    // The operator class may be in a schema outside the search path. A short list of pending entries keeps
    // the writer that merges it into the index fast.
    let create = format!(
        "CREATE INDEX CONCURRENTLY ix_articles_title_trigrams ON articles
        USING gin (title {schema}.gin_trgm_ops) WITH (gin_pending_list_limit = 256)"
    );
    match indexes::build(client, "ix_articles_title_trigrams", &create).await {
        Ok(true) => Ok(TitleIndex::Built),
        Ok(false) => Ok(TitleIndex::Present),
        Err(error) => unavailable(error),
    }
}

/// Returns the server's reason, or the error if the connection was lost.
fn unavailable(error: tokio_postgres::Error) -> Result<TitleIndex, StoreError> {
    match error.as_db_error() {
        Some(reason) => Ok(TitleIndex::Unavailable(reason.message().to_owned())),
        None => Err(error.into()),
    }
}
