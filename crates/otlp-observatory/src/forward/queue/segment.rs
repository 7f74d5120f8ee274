//! Segment of a queue: a file to which records are appended, and which is deleted after all of them have been sent.
//!
//! Reading skips and counts damaged bytes, and always makes progress.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::record::{HEADER, Header, Position, next_header};

/// Returns the path of the segment with this id.
pub(super) fn path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id:016x}.segment"))
}

/// Returns the id in the file name of a segment.
pub(super) fn id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Creates the file of a segment. Only its owner can read it.
pub(super) fn create(folder: &Path, id: u64) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path(folder, id))
}

/// Reads the records of a segment.
///
/// The rest of the segment is held in memory; a segment is at most one record longer than the limit.
#[derive(Debug)]
pub(super) struct Reader {
    unread: Bytes,
    /// Position of the next entry.
    pub(super) position: Position,
}

/// Entry of a segment.
#[derive(Debug)]
pub(super) enum Entry {
    /// Complete record.
    Record {
        request: Bytes,
        items: u32,
    },
    /// Number of bytes that are not a valid record.
    Damaged(u64),
    /// Record longer than the caller's maximum, which is not read.
    TooLong,
    EndOfSegment,
}

impl Reader {
    /// Opens the segment to read from `position` to `end`, or to the end of the file if that is earlier.
    pub(super) fn open(folder: &Path, position: Position, end: u64) -> io::Result<Self> {
        let mut file = File::open(path(folder, position.segment))?;
        file.seek(SeekFrom::Start(position.offset))?;
        let mut unread = Vec::new();
        file.take(end.saturating_sub(position.offset))
            .read_to_end(&mut unread)?;
        let unread = unread.into();
        Ok(Self { unread, position })
    }

    /// Reads the next entry, unless it is a record with a request of more than `max_bytes`.
    pub(super) fn next(&mut self, max_bytes: usize) -> Entry {
        if self.unread.is_empty() {
            return Entry::EndOfSegment;
        }
        let header = Header::decode(&self.unread, self.position)
            .filter(|header| header.record_length() <= self.unread.len());
        let Some(header) = header else {
            let next = Position::new(self.position.segment, self.position.offset + 1);
            let skipped = next_header(&self.unread[1..], next).map_or(self.unread.len(), |at| at + 1);
            return Entry::Damaged(self.advance(skipped).len() as u64);
        };
        if header.record_length() - HEADER > max_bytes {
            return Entry::TooLong;
        }
        let record = self.advance(header.record_length());
        let request = record.slice(HEADER..);
        if header.matches(&request) {
            let items = header.items;
            Entry::Record { request, items }
        } else {
            Entry::Damaged(record.len() as u64)
        }
    }

    fn advance(&mut self, length: usize) -> Bytes {
        self.position.offset += length as u64;
        self.unread.split_to(length)
    }
}
