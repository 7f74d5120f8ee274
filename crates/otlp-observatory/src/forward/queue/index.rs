//! Segments of a queue, and the part of them that has been sent.

use std::{collections::VecDeque, fs::File, sync::Arc};

use super::record::Position;

/// Index of the segments of a queue, in memory.
///
/// A segment is deleted when all of its records have been sent, so an empty queue has no segments.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// Bytes of the first segment that have been sent.
    pub(super) sent: u64,
    /// File of the last segment, if records can be appended to it.
    pub(super) open: Option<Arc<File>>,
    /// Files written since the last sync.
    pub(super) unsynced: Vec<Arc<File>>,
    pub(super) next_id: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    /// Length of its records, in bytes.
    pub(super) length: u64,
}

impl Index {
    /// Returns the length of all segments, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Adds a record of `length` bytes, written to `file`, to the last segment.
    pub(super) fn append(&mut self, length: u64, file: Arc<File>) {
        if let Some(last) = self.segments.back_mut() {
            last.length += length;
        }
        if !self.unsynced.iter().any(|other| Arc::ptr_eq(other, &file)) {
            self.unsynced.push(file);
        }
    }

    /// Marks everything before `end`, a position in the first segment, as sent. Removes and returns the segment if it
    /// has been sent completely.
    pub(super) fn commit(&mut self, end: Position) -> Option<Segment> {
        let first = *self.segments.front().filter(|first| first.id == end.segment)?;
        if end.offset < first.length {
            self.sent = end.offset;
            return None;
        }
        self.sent = 0;
        self.segments.pop_front();
        if self.segments.is_empty() {
            // Deleting an open file does not free its disk space.
            self.open = None;
        }
        Some(first)
    }
}
