//! Segment of a queue: a file to which records are appended, and which is deleted after all of them have been sent.
//!
//! Reading skips and counts damaged bytes, and always makes progress.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::record::{HEADER, Header, Position, next_header};

/// Number of bytes searched at a time for the next record in a damaged file.
const SEARCH_CHUNK: usize = 256 * 1024;

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
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    /// Position of the next entry.
    pub(super) position: Position,
    /// Offset of the end of the last record.
    end: u64,
}

/// Entry of a segment.
#[derive(Debug)]
pub(super) enum Entry {
    /// Complete record.
    Record {
        request: Vec<u8>,
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
        let end = end.min(file.metadata()?.len());
        file.seek(SeekFrom::Start(position.offset))?;
        Ok(Self { file, position, end })
    }

    /// Reads the next entry, unless it is a record with a request of more than `max_bytes`.
    pub(super) fn next(&mut self, max_bytes: u64) -> io::Result<Entry> {
        let left = self.end.saturating_sub(self.position.offset);
        if left == 0 {
            return Ok(Entry::EndOfSegment);
        }
        let header = self.read(left.min(HEADER as u64))?;
        let Some(header) = Header::decode(&header, self.position) else {
            return self.skip_damaged();
        };
        let length = u64::from(header.length);
        if length > left - HEADER as u64 {
            return self.skip_damaged();
        }
        if length > max_bytes {
            self.seek(self.position.offset)?;
            return Ok(Entry::TooLong);
        }
        let request = self.read(length)?;
        let record_length = HEADER as u64 + length;
        self.position.offset += record_length;
        Ok(if header.matches(&request) {
            Entry::Record {
                request,
                items: header.items,
            }
        } else {
            Entry::Damaged(record_length)
        })
    }

    /// Skips the damaged record at the current position, up to the next header.
    fn skip_damaged(&mut self) -> io::Result<Entry> {
        let begin = self.position.offset;
        let mut from = begin + 1;
        loop {
            self.seek(from.min(self.end))?;
            let left = self.end.saturating_sub(from);
            let bytes = self.read(left.min(SEARCH_CHUNK as u64))?;
            let found = next_header(&bytes, Position::new(self.position.segment, from));
            let is_last = bytes.len() as u64 == left;
            if found.is_none() && !is_last {
                // A header may extend over two chunks.
                from += (bytes.len() - (HEADER - 1)) as u64;
                continue;
            }
            self.position.offset = found.map_or(self.end, |at| from + at as u64);
            self.seek(self.position.offset)?;
            return Ok(Entry::Damaged(self.position.offset - begin));
        }
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset)).map(drop)
    }

    fn read(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
