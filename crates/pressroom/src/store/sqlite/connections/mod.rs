//! Connections to the database. [`SqliteStore`] runs every [`Statement`], and records its span and duration.
//! Anything else that could run SQL is private to this module, and Clippy rejects it elsewhere.
//!
//! One thread writes and a few read, each with its own connection in WAL mode; see [`threads`]. Commits are
//! on disk before they are acknowledged (`synchronous=FULL`), so neither `kill -9` nor a power failure loses
//! them.
#![expect(
    clippy::disallowed_methods,
    reason = "statements are run here, each within its span"
)]

pub(super) mod connect;
mod threads;
mod transaction;

use std::{path::Path, pin::pin, sync::Arc};

use rusqlite::{Connection, Params, Row, TransactionBehavior};
use telemetry::{Context, Database, Returned, Statement};
use tokio::sync::Semaphore;

pub(super) use self::transaction::Transaction;
use self::{
    connect::{IN_MEMORY, connect, path_of},
    threads::Threads,
};
use super::{error::StatementError, migrations};
use crate::{outage::OutageLog, store::StoreError};

/// Number of connections that lists without a filter may use, and of those that searches may use.
const LISTS: usize = 2;
const SEARCHES: usize = 2;

/// Number of connections for reads. One is left for reads by key while lists and searches use theirs.
const READERS: usize = LISTS + SEARCHES + 1;

/// A store on SQLite.
pub struct SqliteStore {
    database: Database,
    writer: Threads,
    readers: Threads,
    outages: Arc<OutageLog>,
    /// Permits to read pages of the list without a filter.
    pub(super) lists: Arc<Semaphore>,
    /// Permits to read pages of other lists, which may read the whole table and must not delay other reads.
    pub(super) searches: Arc<Semaphore>,
}

impl SqliteStore {
    /// Opens `sqlite://path`, a path, or `:memory:`. Creates a missing file and its folder, and migrates the
    /// schema. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be opened or is locked, [`StoreError::Failed`] when
    /// it is not a Pressroom database.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let path = path_of(url);
        let mut writer = connect(path)?;
        migrations::apply(&mut writer)?;
        let readers = if path == IN_MEMORY {
            None
        } else {
            let connections = (0..READERS).map(|_| connect(path));
            let connections = connections.collect::<Result<Vec<_>, _>>()?;
            Some(Threads::start("sqlite-read", connections)?)
        };
        let writer = Threads::start("sqlite-write", vec![writer])?;
        let name = Path::new(path).file_name().unwrap_or_default();
        Ok(Self {
            database: Database::new("sqlite", name.to_string_lossy().into_owned(), None),
            // An in-memory database exists only on the connection that created it.
            readers: readers.unwrap_or_else(|| writer.clone()),
            writer,
            outages: OutageLog::new("database unavailable", "database available again"),
            lists: Arc::new(Semaphore::new(LISTS)),
            searches: Arc::new(Semaphore::new(SEARCHES)),
        })
    }

    /// Runs a single read that returns at most one row.
    pub(super) async fn row<T: Send + 'static>(
        &self,
        statement: &'static Statement,
        params: impl Params + Send + 'static,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        self.read(statement, move |db| db.row(statement, params, read))
            .await
    }

    /// Runs a single write, and returns the number of changed rows.
    pub(super) async fn execute(
        &self,
        statement: &'static Statement,
        params: impl Params + Send + 'static,
    ) -> Result<u64, StoreError> {
        self.write(statement, move |db| Ok(db.execute(statement, params)? as u64))
            .await
    }

    /// Reads from one snapshot.
    ///
    /// The span covers all of `work`. It is named after `statement`, which `work` runs; the other statements
    /// of `work` have child spans.
    pub(super) async fn read<T: Returned + Send + 'static>(
        &self,
        statement: &'static Statement,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(&self.readers, TransactionBehavior::Deferred, statement, work)
            .await
    }

    /// Writes in one transaction, which is rolled back when `work` fails.
    ///
    /// The span also covers the wait for the writer, `BEGIN` and `COMMIT`. It is named after `statement`,
    /// which `work` runs; the other statements of `work` have child spans.
    pub(super) async fn write<T: Returned + Send + 'static>(
        &self,
        statement: &'static Statement,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(&self.writer, TransactionBehavior::Immediate, statement, work)
            .await
    }

    async fn run<T: Returned + Send + 'static>(
        &self,
        threads: &Threads,
        behavior: TransactionBehavior,
        statement: &'static Statement,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.clone();
        let running = pin!(async move {
            let span = Context::current();
            let run = move |connection: &mut Connection| {
                let _current = span.attach();
                let transaction = Transaction::begin(connection, behavior, statement, database)?;
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            };
            threads.run(run).await
        });
        let result = self.database.observe(statement, running).await;
        match &result {
            Err(StatementError {
                error: StoreError::Unavailable(reason),
                ..
            }) => self.outages.record_failure(statement.summary, reason),
            _ => self.outages.record_success(statement.summary),
        }
        Ok(result?)
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
