//! The way to the database. There is only this one: work is given a [`Moment`], which runs a
//! [`Statement`] and reads its rows, and the statement's span and duration come with it. What could
//! run SQL without them is private to this module, and clippy refuses it elsewhere.
//!
//! One thread writes and a few read, each with its own connection in WAL mode; see [`threads`].
//! A commit is on the disk before it is answered for (`synchronous=FULL`): neither `kill -9` nor
//! a power cut takes back what was accepted.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where statements are run, each within its span"
)]

mod moment;
mod threads;

use std::{path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};
use telemetry::{Context, Database, Returned, Statement};

pub(super) use self::moment::Moment;
use self::threads::Threads;
use super::{error::StatementError, migrations};
use crate::store::StoreError;

/// How many connections read at once.
const READERS: usize = 4;
/// How long to wait for another process that writes the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// A database that lives as long as its store.
const IN_MEMORY: &str = ":memory:";

/// The connections of a store.
pub(super) struct Connections {
    database: Database,
    writer: Threads,
    readers: Threads,
}

impl Connections {
    /// Opens `sqlite://path`, a path, or `:memory:`; creates the file and its folder where missing
    /// and brings the schema up to date. Blocks while it does.
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        let path = path_of(url);
        let mut writer = connect(path)?;
        migrations::apply(&mut writer)?;
        let readers = if path == IN_MEMORY {
            None
        } else {
            let connections = (0..READERS).map(|_| connect(path));
            let connections = connections.collect::<Result<Vec<_>, _>>()?;
            Some(start("sqlite-read", connections)?)
        };
        let writer = start("sqlite-write", vec![writer])?;
        let name = Path::new(path).file_name().unwrap_or_default();
        Ok(Self {
            database: Database::new("sqlite", name.to_string_lossy().into_owned(), None),
            // What is in memory is seen by the connection that made it only.
            readers: readers.unwrap_or_else(|| writer.clone()),
            writer,
        })
    }

    /// Reads at one moment: all statements of `work` see the same state. The span covers all of it
    /// and is named after `statement`, which `work` runs; others are spans below.
    pub(super) async fn read<T: Returned + Send + 'static>(
        &self,
        statement: &Statement,
        work: impl FnOnce(&Moment<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StatementError> {
        self.run(&self.readers, TransactionBehavior::Deferred, statement, work)
            .await
    }

    /// Writes: all of `work` or, after an error, none of it. The span covers all of it, waiting for
    /// the turn, `BEGIN` and `COMMIT` too, and is named after `statement`, which `work` runs; others
    /// are spans below.
    pub(super) async fn write<T: Returned + Send + 'static>(
        &self,
        statement: &Statement,
        work: impl FnOnce(&Moment<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StatementError> {
        self.run(&self.writer, TransactionBehavior::Immediate, statement, work)
            .await
    }

    async fn run<T: Returned + Send + 'static>(
        &self,
        threads: &Threads,
        behavior: TransactionBehavior,
        statement: &Statement,
        work: impl FnOnce(&Moment<'_>) -> Result<T, StatementError> + Send + 'static,
    ) -> Result<T, StatementError> {
        let (named, database) = (*statement, self.database.clone());
        let running = async move {
            let span = Context::current();
            let run = move |connection: &mut Connection| {
                let _in_force = span.attach();
                let moment = Moment::begin(connection, behavior, named, database)?;
                let done = work(&moment)?;
                moment.commit()?;
                Ok(done)
            };
            threads.run(run).await
        };
        self.database.observe(statement, running).await
    }
}

pub(super) fn path_of(url: &str) -> &str {
    url.strip_prefix("sqlite://").unwrap_or(url)
}

fn start(name: &str, connections: Vec<Connection>) -> Result<Threads, StoreError> {
    Threads::start(name, connections).map_err(|error| StoreError::Unavailable(error.to_string()))
}

pub(super) fn connect(path: &str) -> Result<Connection, StoreError> {
    if path != IN_MEMORY
        && let Some(folder) = Path::new(path).parent()
    {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    }
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok::<_, rusqlite::Error>(connection)
    };
    open().map_err(|error| StatementError::from(error).into())
}
