//! Rows that wait for the writer, limited in bytes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::rows::Row;

/// Maximum size of the waiting rows in bytes. A larger request waits until no other does.
const LIMIT: usize = 8 << 20;

/// Room for rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<(Mutex<usize>, Condvar)>);

/// Rows of a request, which hold room until they are dropped.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) rows: Vec<Row>,
    bytes: usize,
    room: Room,
}

impl Room {
    /// Waits until there is room for `rows`.
    pub(super) fn hold(&self, rows: Vec<Row>) -> Pending {
        let bytes = rows.iter().map(Row::bytes).sum::<usize>().min(LIMIT);
        let (used, freed) = &*self.0;
        let mut used = freed
            .wait_while(used.lock().unwrap_or_else(PoisonError::into_inner), |used| {
                *used + bytes > LIMIT
            })
            .unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
        drop(used);
        Pending {
            rows,
            bytes,
            room: self.clone(),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (used, freed) = &*self.room.0;
        *used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::{archive::rows, samples};

    fn rows(bytes: usize) -> Vec<Row> {
        let [traces, ..] = samples::exports("");
        let mut row = rows::of(&traces, 1).remove(0);
        row.grams.clear();
        row.body = vec![0; bytes];
        vec![row]
    }

    #[test]
    fn rows_wait_for_room_and_large_ones_for_all_of_it() {
        let room = Room::default();
        let first = room.hold(rows(LIMIT / 2));
        let (held, is_held) = mpsc::channel();
        let large = thread::spawn({
            let room = room.clone();
            move || held.send(room.hold(rows(2 * LIMIT)))
        });
        assert!(
            is_held.recv_timeout(Duration::from_millis(50)).is_err(),
            "no room yet"
        );
        drop(first);
        drop(is_held.recv().expect("room"));
        large.join().expect("no panic").expect("sent");
        assert_eq!(*room.0.0.lock().expect("not poisoned"), 0);
    }
}
