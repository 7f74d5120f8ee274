//! Rows and tables that other transactions keep locked. A statement that needs a locked row would occupy a
//! connection until it times out, and delay statements that need other rows.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use telemetry::Statement;
use tokio::time::Instant;

/// Time for which a row counts as locked after a write of it has timed out.
const MEMORY: Duration = Duration::from_secs(5);
/// Maximum number of recorded rows.
const MAX_ROWS: usize = 256;

/// Recently locked rows, by statement.
#[derive(Default)]
pub(super) struct LockedRows {
    /// Whether `rows` may have entries.
    any: AtomicBool,
    rows: Mutex<Vec<(Row, Instant)>>,
    hasher: RandomState,
}

/// The row that a statement needs. Reads record their whole table, as the row with the key `()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Address of the statement's text, which is a constant.
    statement: usize,
    key: u64,
}

impl LockedRows {
    /// Whether no statement met a lock recently. Cheaper than [`Self::contains`].
    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// Returns the row with this key.
    pub(super) fn row(&self, statement: &Statement, key: impl Hash) -> Row {
        Row {
            statement: statement.text.as_ptr().addr(),
            key: self.hasher.hash_one(key),
        }
    }

    /// Whether the row was locked recently.
    pub(super) fn contains(&self, row: Row) -> bool {
        self.rows().iter().any(|(other, _)| *other == row)
    }

    /// Whether another row was locked recently that the same statement needs, so that the table may be locked.
    pub(super) fn contains_similar(&self, row: Row) -> bool {
        self.rows()
            .iter()
            .any(|(other, _)| other.statement == row.statement)
    }

    pub(super) fn insert(&self, row: Row) {
        let mut rows = self.rows();
        rows.retain(|(other, _)| *other != row);
        if rows.len() == MAX_ROWS {
            rows.remove(0);
        }
        rows.push((row, Instant::now()));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Removes a row that is no longer locked.
    pub(super) fn remove(&self, row: Row) {
        self.rows().retain(|(other, _)| *other != row);
    }

    /// Returns the rows that still count as locked, the oldest first.
    fn rows(&self) -> MutexGuard<'_, Vec<(Row, Instant)>> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|(_, seen)| seen.elapsed() < MEMORY);
        self.any.store(!rows.is_empty(), Ordering::Relaxed);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::{RELEASE_DELIVERY, REVOKE_TOKEN};

    #[test]
    fn a_row_counts_as_locked_until_it_is_written_or_some_time_has_passed() {
        let locked = LockedRows::default();
        let row = locked.row(&RELEASE_DELIVERY, "a");
        let others = [locked.row(&RELEASE_DELIVERY, "b"), locked.row(&REVOKE_TOKEN, "a")];
        assert!(locked.is_empty());
        assert!(!locked.contains(row));
        locked.insert(row);
        assert!(!locked.is_empty());
        assert!(locked.contains(row));
        assert_eq!(others.map(|other| locked.contains(other)), [false, false]);
        assert_eq!(others.map(|other| locked.contains_similar(other)), [true, false]);
        locked.remove(row);
        assert!(!locked.contains(row));
        let long_ago = Instant::now().checked_sub(MEMORY).unwrap();
        locked.rows.lock().unwrap().push((row, long_ago));
        assert!(!locked.contains(row));
    }

    #[test]
    fn many_locked_rows_need_bounded_memory() {
        let locked = LockedRows::default();
        for key in 0..1000 {
            locked.insert(locked.row(&REVOKE_TOKEN, key));
        }
        assert_eq!(locked.rows().len(), MAX_ROWS);
        assert!(locked.contains(locked.row(&REVOKE_TOKEN, 999)));
    }
}
