//! Bitmaps of the grams of a block: of the records and traces whose first rows have consecutive numbers. A search skips the
//! blocks that cannot contain what it looks for.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::store::grams::POSITIONS;

/// Binary logarithm of the number of rows of a block.
pub(super) const SHIFT: u32 = 8;

/// Maximum number of bitmaps in memory: 1 MiB.
const MAX_LOADED: usize = 64;

const READ: &str = "SELECT bitmap FROM blocks WHERE block = ?1";

/// Returns the block of the row with a number.
pub(super) fn of(number: i64) -> i64 {
    number >> SHIFT
}

/// Bitmaps that are being written.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Each with whether it differs from the file.
    loaded: BTreeMap<i64, (Vec<u8>, bool)>,
}

impl Blocks {
    /// Adds grams to the block of the row with a number.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        number: i64,
        grams: &[u32],
    ) -> rusqlite::Result<()> {
        let block = of(number);
        if !self.loaded.contains_key(&block) {
            if self.loaded.len() == MAX_LOADED {
                self.write(connection)?;
                self.loaded.pop_first();
            }
            let stored = connection
                .prepare_cached(READ)?
                .query_row([block], |row| row.get(0));
            let bitmap = stored.optional()?.unwrap_or_else(|| vec![0; POSITIONS / 8]);
            self.loaded.insert(block, (bitmap, false));
        }
        if let Some((bitmap, is_changed)) = self.loaded.get_mut(&block) {
            for gram in grams {
                bitmap[*gram as usize / 8] |= 1 << (gram % 8);
            }
            *is_changed = true;
        }
        Ok(())
    }

    /// Writes the bitmaps that were changed.
    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut replace =
            connection.prepare_cached("INSERT OR REPLACE INTO blocks (block, bitmap) VALUES (?1, ?2)")?;
        for (block, (bitmap, is_changed)) in &mut self.loaded {
            if std::mem::take(is_changed) {
                replace.execute(params![block, &*bitmap])?;
            }
        }
        Ok(())
    }

    /// Forgets the bitmaps, for example because they were not committed.
    pub(super) fn clear(&mut self) {
        self.loaded.clear();
    }
}

/// Tells which blocks may contain all of some grams.
#[derive(Debug)]
pub(super) struct BlockFilter<'a> {
    connection: &'a Connection,
    grams: &'a [u32],
    known: HashMap<i64, bool>,
}

impl<'a> BlockFilter<'a> {
    pub(super) fn new(connection: &'a Connection, grams: &'a [u32]) -> Self {
        Self {
            connection,
            grams,
            known: HashMap::new(),
        }
    }

    /// Whether the block of the row with a number may contain the grams.
    pub(super) fn accepts(&mut self, number: i64) -> rusqlite::Result<bool> {
        if self.grams.is_empty() {
            return Ok(true);
        }
        let block = of(number);
        if let Some(known) = self.known.get(&block) {
            return Ok(*known);
        }
        let has_all = |bitmap: &[u8]| {
            let mut grams = self.grams.iter();
            grams.all(|gram| {
                bitmap
                    .get(*gram as usize / 8)
                    .is_some_and(|byte| byte >> (gram % 8) & 1 == 1)
            })
        };
        let mut read = self.connection.prepare_cached(READ)?;
        let accepted = read.query_row([block], |row| Ok(has_all(row.get_ref(0)?.as_blob()?)));
        let accepted = accepted.optional()?.unwrap_or(false);
        self.known.insert(block, accepted);
        Ok(accepted)
    }
}
