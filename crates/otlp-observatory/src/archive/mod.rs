//! Archive: telemetry that is kept on disk, in an SQLite database. Everything is written when it is stored in memory, and the
//! newest part is read into memory after a restart. What memory no longer has is read from the archive.
//!
//! A write survives a crash of the process as soon as its transaction has ended, which takes milliseconds. The bounds of
//! size and age remove the oldest telemetry.

#![expect(
    clippy::disallowed_methods,
    reason = "the rule is for statements of Pressroom, which record spans; the observatory does not trace itself"
)]

mod blocks;
mod export;
mod pending;
mod readers;
mod rows;
mod search;
#[cfg(test)]
mod tests;
mod texts;
mod writer;

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, OptionalExtension as _, params};

use self::{
    pending::Room,
    readers::{Readers, limit_cache},
    writer::Command,
};
use crate::{
    config::Keep,
    export::{Export, Signal},
    store::{Store, TraceId},
};

/// Maximum size of the trace that is read into a store of its own, in bytes. Larger traces are cut like in memory.
const MAX_TRACE: usize = 64 << 20;

/// Version of the schema.
const VERSION: i64 = 1;

/// Inverse of the fraction of the memory limit that is filled after a restart.
const RESTORED_DIVISOR: usize = 4;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS items (
        number INTEGER PRIMARY KEY,
        signal INTEGER NOT NULL,
        arrived INTEGER NOT NULL,
        time INTEGER NOT NULL,
        trace BLOB,
        body BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS items_by_time ON items (signal, time);
    CREATE INDEX IF NOT EXISTS items_by_trace ON items (trace, signal) WHERE trace IS NOT NULL;
    -- A row for each trace: the numbers of its first and last row in order of arrival, the position of its earliest row in
    -- lists, and what filters compare.
    CREATE TABLE IF NOT EXISTS traces (
        first INTEGER PRIMARY KEY,
        trace BLOB NOT NULL UNIQUE,
        time INTEGER NOT NULL,
        number INTEGER NOT NULL,
        last INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        longest INTEGER NOT NULL,
        latest INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS traces_by_time ON traces (time, number, failed, longest, latest);
    CREATE TABLE IF NOT EXISTS blocks (
        block INTEGER PRIMARY KEY,
        bitmap BLOB NOT NULL
    );
";

/// Archive of telemetry.
#[derive(Debug)]
pub(crate) struct Archive {
    readers: Readers,
    writer: Mutex<Option<(Sender<Command>, JoinHandle<()>)>>,
    /// Room for the rows that wait for the writer.
    room: Room,
    /// Size of the telemetry that is read into memory after a restart, in bytes.
    restored_bytes: usize,
    /// Time up to which memory may lack telemetry of earlier processes.
    missing_until: AtomicU64,
}

impl Archive {
    /// Opens or creates the database. After a restart, a part of `memory` is filled.
    ///
    /// # Errors
    /// Fails if the file cannot be created, is not such a database, has another version, or a thread cannot be started.
    pub(crate) fn open(keep: &Keep, memory: usize) -> rusqlite::Result<Self> {
        let (path, bounds) = (&*keep.path, keep.clone());
        create_private(path).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        prepare(&connection)?;
        limit_cache(&connection)?;
        let newest: Option<i64> =
            connection.query_row("SELECT max(number) FROM items", [], |row| row.get(0))?;
        let (sender, commands) = channel();
        let thread = thread::Builder::new()
            .name("observatory-archive".into())
            .spawn(move || writer::run(connection, &commands, &bounds))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self {
            readers: Readers::new(path.to_owned()),
            writer: Mutex::new(Some((sender, thread))),
            room: Room::default(),
            restored_bytes: memory / RESTORED_DIVISOR,
            missing_until: AtomicU64::new(newest.map_or(0, |_| u64::MAX)),
        })
    }

    /// Writes an export that arrived at `now`. Waits if the disk is slower than the senders.
    pub(crate) fn write(&self, export: &Export, now: u64) {
        rows::in_pieces(export, now, |rows| {
            self.send(Command::Write(self.room.hold(rows)));
        });
    }

    /// Removes everything.
    pub(crate) fn clear(&self) {
        self.missing_until.store(0, Ordering::Release);
        self.send(Command::Clear);
    }

    fn send(&self, command: Command) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sender, _)) = &*writer {
            // The thread ends only after the sender is dropped.
            let _ = sender.send(command);
        }
    }

    /// Writes what waits, and ends the thread.
    pub(crate) fn finish(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = writer {
            drop(sender);
            let _ = thread.join();
        }
    }

    /// Reads the newest telemetry of earlier processes into `store`.
    pub(crate) fn restore(&self, store: &Store) {
        if let Err(error) = self.try_restore(store) {
            telemetry::warn!(%error, "cannot read all kept telemetry into memory; lists read it from the file");
        }
    }

    fn try_restore(&self, store: &Store) -> rusqlite::Result<()> {
        if self.missing_until.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let mut first = i64::MAX;
        let mut bytes = 0;
        let reader = self.readers.get()?;
        let mut newest = reader.prepare("SELECT number, length(body) FROM items ORDER BY number DESC")?;
        let mut sizes = newest.query([])?;
        while let Some(row) = sizes.next()? {
            bytes += row.get::<_, usize>(1)?;
            if bytes > self.restored_bytes {
                break;
            }
            first = row.get(0)?;
        }
        let mut items =
            reader.prepare("SELECT signal, arrived, body FROM items WHERE number >= ?1 ORDER BY number")?;
        let mut items = items.query([first])?;
        while let Some(row) = items.next()? {
            if self.missing_until() == 0 {
                // Everything was removed in the meantime.
                return Ok(());
            }
            if let Some(export) = decoded(row.get(0)?, row.get_ref(2)?.as_blob()?) {
                store.insert_at(export, row.get::<_, i64>(1)?.cast_unsigned());
            }
        }
        // The index contains the numbers, so that only the rows of the restored part are skipped.
        let mut latest = reader.prepare(
            "SELECT time FROM items INDEXED BY items_by_time WHERE signal = ?1 AND number < ?2
             ORDER BY time DESC LIMIT 1",
        )?;
        let mut missing_until = 0;
        for signal in [Signal::Traces, Signal::Logs] {
            let time: Option<i64> = latest
                .query_row(params![signal as u8, first], |row| row.get(0))
                .optional()?;
            missing_until = missing_until.max(time.map_or(0, i64::cast_unsigned));
        }
        // Unless everything was removed in the meantime.
        let _ =
            self.missing_until
                .compare_exchange(u64::MAX, missing_until, Ordering::AcqRel, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the time up to which memory may lack telemetry of earlier processes.
    pub(crate) fn missing_until(&self) -> u64 {
        self.missing_until.load(Ordering::Acquire)
    }
}

/// Reads the spans of a trace, or its records, into a store.
fn read_trace(reader: &Connection, id: TraceId, signal: Signal, store: &Store) -> rusqlite::Result<()> {
    let mut rows = reader.prepare_cached(
        "SELECT signal, arrived, body FROM items INDEXED BY items_by_trace
         WHERE trace = ?1 AND signal = ?2 ORDER BY number",
    )?;
    let mut rows = rows.query(params![id.as_bytes(), signal as u8])?;
    while let Some(row) = rows.next()? {
        if let Some(export) = decoded(row.get(0)?, row.get_ref(2)?.as_blob()?) {
            store.insert_at(export, row.get::<_, i64>(1)?.cast_unsigned());
        }
    }
    Ok(())
}

/// Creates the tables.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && version != VERSION {
        let error = io::Error::other("the file has another format; remove it or name another file");
        return Err(rusqlite::Error::ToSqlConversionFailure(error.into()));
    }
    // A process that ends between the two must not leave a file without a version, which others refuse.
    connection.execute_batch(&format!(
        "BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

/// Creates the file if it is missing. Only its owner can read it.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop)
}

fn decoded(signal: u8, body: &[u8]) -> Option<Export> {
    let signal = Signal::ALL.into_iter().find(|known| *known as u8 == signal)?;
    rows::decode(signal, body)
}
