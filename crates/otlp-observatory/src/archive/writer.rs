//! Thread that writes rows. Rows that arrive during a transaction are written together by the next one, so that a single
//! request is on disk at once and a flood takes few transactions.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use super::rows::{Row, stored};
use crate::{config::Keep, store::now};

/// Size after which a transaction ends, in bytes.
const TRANSACTION: usize = 4 << 20;

/// Interval at which the bounds are enforced.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Inverse of the fraction of the numbers whose rows are removed at a time when the file is too large.
const REMOVED_DIVISOR: i64 = 64;

/// Request to the thread.
#[derive(Debug)]
pub(super) enum Command {
    Write(Vec<Row>),
    Clear,
}

/// Executes commands until their sender is dropped.
pub(super) fn run(mut connection: Connection, commands: &Receiver<Command>, bounds: &Keep) {
    let mut checked = Instant::now();
    let mut failing = false;
    while let Ok(command) = commands.recv() {
        let mut result = execute(&mut connection, command, commands);
        if checked.elapsed() > CHECK_INTERVAL {
            result = result.and_then(|()| enforce(&connection, bounds));
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

/// Executes `command` and those that wait behind it in one transaction.
fn execute(
    connection: &mut Connection,
    mut command: Command,
    commands: &Receiver<Command>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut bytes = 0;
    loop {
        match command {
            Command::Write(rows) => {
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO items (signal, arrived, time, trace, body) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?;
                for row in rows {
                    bytes += row.body.len();
                    let (signal, arrived, time) = (row.signal as u8, stored(row.arrived), stored(row.time));
                    insert.execute(params![signal, arrived, time, row.trace, row.body])?;
                }
            }
            Command::Clear => drop(transaction.execute("DELETE FROM items", [])?),
        }
        if bytes >= TRANSACTION {
            break;
        }
        match commands.try_recv() {
            Ok(next) => command = next,
            Err(_) => break,
        }
    }
    transaction.commit()
}

/// Removes the oldest rows until the bounds hold.
pub(super) fn enforce(connection: &Connection, bounds: &Keep) -> rusqlite::Result<()> {
    let age = u64::try_from(bounds.max_age.as_nanos()).unwrap_or(u64::MAX);
    let first_kept = stored(now().saturating_sub(age));
    // Numbers are in order of arrival, so the first row that is young enough ends the search.
    let outdated = "DELETE FROM items WHERE number < (SELECT number FROM items WHERE arrived >= ?1 ORDER BY number LIMIT 1)";
    let oldest: Option<i64> = connection.query_row(
        "SELECT (SELECT arrived FROM items ORDER BY number LIMIT 1)",
        [],
        |row| row.get(0),
    )?;
    if oldest.is_some_and(|oldest| oldest < first_kept) {
        connection.execute(outdated, [first_kept])?;
    }
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    while (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")? > bounds.max_bytes {
        let (first, last): (i64, i64) = connection.query_row(
            "SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM items",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let until = first + (last - first) / REMOVED_DIVISOR;
        if connection.execute("DELETE FROM items WHERE number <= ?1", [until])? == 0 {
            break;
        }
    }
    Ok(())
}
