//! Thread that writes rows. Rows that arrive during a transaction are written together by the next one, so that a single
//! request is on disk at once and a flood takes few transactions.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use super::{
    blocks::{self, Blocks},
    pending::Pending,
    rows::{Row, stored},
};
use crate::{config::Keep, export::Signal, store::now};

/// Size after which a transaction ends, in bytes.
const TRANSACTION: usize = 4 << 20;

/// Interval at which the bounds are enforced.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Inverse of the fraction of the numbers whose rows are removed at a time when the file is too large.
const REMOVED_DIVISOR: i64 = 64;

/// Request to the thread.
#[derive(Debug)]
pub(super) enum Command {
    Write(Pending),
    Clear,
}

/// Executes commands until their sender is dropped.
pub(super) fn run(mut connection: Connection, commands: &Receiver<Command>, bounds: &Keep) {
    let mut checked = Instant::now();
    let mut failing = false;
    let mut blocks = Blocks::default();
    let mut to_clear = false;
    while let Ok(command) = commands.recv() {
        let mut result = execute(&mut connection, command, commands, &mut blocks, &mut to_clear);
        if result.is_err() {
            blocks.clear();
        }
        if checked.elapsed() > CHECK_INTERVAL {
            result = result.and(enforce(&connection, bounds));
            checked = Instant::now();
        }
        let was_failing = std::mem::replace(&mut failing, result.is_err());
        if let Err(error) = result
            && !was_failing
        {
            telemetry::warn!(%error, "cannot write kept telemetry; it is only in memory until writing succeeds");
        }
    }
}

/// Executes `command` and those that wait behind it in one transaction. `to_clear` tells whether an earlier transaction
/// that would have removed everything failed.
fn execute(
    connection: &mut Connection,
    mut command: Command,
    commands: &Receiver<Command>,
    blocks: &mut Blocks,
    to_clear: &mut bool,
) -> rusqlite::Result<()> {
    *to_clear |= matches!(command, Command::Clear);
    let transaction = connection.transaction()?;
    if *to_clear {
        clear(&transaction)?;
    }
    let mut bytes = 0;
    loop {
        match command {
            Command::Write(pending) => {
                for row in &pending.rows {
                    bytes += row.bytes();
                    insert(&transaction, row, blocks)?;
                }
            }
            Command::Clear => {
                *to_clear = true;
                blocks.clear();
                clear(&transaction)?;
            }
        }
        if bytes >= TRANSACTION {
            break;
        }
        match commands.try_recv() {
            Ok(next) => command = next,
            Err(_) => break,
        }
    }
    blocks.write(&transaction)?;
    transaction.commit()?;
    *to_clear = false;
    Ok(())
}

fn clear(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("DELETE FROM items; DELETE FROM traces; DELETE FROM blocks;")
}

/// Inserts a row, and adds it to the summary of its trace and to the index of its texts.
fn insert(connection: &Connection, row: &Row, blocks: &mut Blocks) -> rusqlite::Result<()> {
    let (signal, arrived, time) = (row.signal as u8, stored(row.arrived), stored(row.time));
    connection
        .prepare_cached("INSERT INTO items (signal, arrived, time, trace, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![signal, arrived, time, row.trace, row.body])?;
    let number = connection.last_insert_rowid();
    let first = match (&row.trace, row.signal) {
        (Some(trace), Signal::Traces) => connection
            .prepare_cached(
                "INSERT INTO traces (first, trace, time, number, last, failed, longest, latest)
                 VALUES (?1, ?2, ?3, ?1, ?1, ?4, ?5, ?6)
                 ON CONFLICT (trace) DO UPDATE SET
                     number = iif(excluded.time < time, excluded.number, number),
                     time = min(time, excluded.time),
                     last = excluded.last,
                     failed = max(failed, excluded.failed),
                     longest = max(longest, excluded.longest),
                     latest = max(latest, excluded.latest)
                 RETURNING first",
            )?
            .query_row(
                params![
                    number,
                    trace,
                    time,
                    row.failed,
                    stored(row.longest),
                    stored(row.latest)
                ],
                |row| row.get(0),
            )?,
        (_, Signal::Metrics) => return Ok(()),
        _ => number,
    };
    blocks.add(connection, first, &row.grams)
}

/// Removes the oldest rows until the bounds hold.
pub(super) fn enforce(connection: &Connection, bounds: &Keep) -> rusqlite::Result<()> {
    let age = u64::try_from(bounds.max_age.as_nanos()).unwrap_or(u64::MAX);
    let first_kept = stored(now().saturating_sub(age));
    // Numbers are in order of arrival, so the first row that is young enough ends the search.
    let oldest: Option<i64> = connection.query_row(
        "SELECT (SELECT arrived FROM items ORDER BY number LIMIT 1)",
        [],
        |row| row.get(0),
    )?;
    if oldest.is_some_and(|oldest| oldest < first_kept) {
        let number: Option<i64> = connection.query_row(
            "SELECT (SELECT number FROM items WHERE arrived >= ?1 ORDER BY number LIMIT 1)",
            [first_kept],
            |row| row.get(0),
        )?;
        remove(connection, number.unwrap_or(i64::MAX))?;
    }
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    while (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")? > bounds.max_bytes {
        let (first, last): (i64, i64) = connection.query_row(
            "SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM items",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let until = first + (last - first) / REMOVED_DIVISOR;
        if remove(connection, until + 1)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Removes the rows before a number with their index; returns their number.
fn remove(connection: &Connection, before: i64) -> rusqlite::Result<usize> {
    let transaction = connection.unchecked_transaction()?;
    let removed = transaction.execute("DELETE FROM items WHERE number < ?1", [before])?;
    transaction.execute("DELETE FROM traces WHERE first < ?1 AND last < ?1", [before])?;
    // A trace is in the block of its first row, even if that was removed.
    transaction.execute(
        "DELETE FROM blocks WHERE block < (SELECT min(?1, (SELECT coalesce(min(first), ?1) FROM traces)) >> ?2)",
        [before, blocks::SHIFT.into()],
    )?;
    transaction.commit()?;
    Ok(removed)
}
