//! A segment of a queue: a file that records are appended to, and that is deleted when all of them were sent. What is
//! damaged in it is passed over and counted; reading always gets further.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::record::{HEADER, Header, Position, next_header};

/// How much is looked at in one go where a file is damaged.
const STRIDE: usize = 256 * 1024;

/// Where the segment with this number is.
pub(super) fn path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id:016x}.segment"))
}

/// The number in the name of a segment's file.
pub(super) fn id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// A new file, for its owner alone.
pub(super) fn create(folder: &Path, id: u64) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path(folder, id))
}

/// Reads a segment from some place on, up to a length that is known to be written.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    at: Position,
    end: u64,
}

/// What is next in a segment.
#[derive(Debug)]
pub(super) enum Next {
    /// A whole record.
    Record {
        request: Vec<u8>,
        items: u32,
    },
    /// So many bytes that are no record.
    Damaged(u64),
    /// A record, but of more than the bytes that were asked for.
    TooLong,
    End,
}

impl Reader {
    /// From `at` to `end`, or to where the file ends before.
    pub(super) fn open(folder: &Path, at: Position, end: u64) -> io::Result<Self> {
        let mut file = File::open(path(folder, at.segment))?;
        let end = end.min(file.metadata()?.len());
        file.seek(SeekFrom::Start(at.offset))?;
        Ok(Self { file, at, end })
    }

    /// Where the next record stands.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// The next record, if it has at most `longest` bytes.
    pub(super) fn next(&mut self, longest: u64) -> io::Result<Next> {
        let left = self.end.saturating_sub(self.at.offset);
        if left == 0 {
            return Ok(Next::End);
        }
        let header = self.read(left.min(HEADER as u64))?;
        let Some(header) = Header::decode(&header, self.at) else {
            return self.pass_over();
        };
        let length = u64::from(header.length);
        if length > left - HEADER as u64 {
            return self.pass_over();
        }
        if length > longest {
            self.go_to(self.at.offset)?;
            return Ok(Next::TooLong);
        }
        let request = self.read(length)?;
        let whole = HEADER as u64 + length;
        self.at.offset += whole;
        Ok(if header.is_of(&request) {
            Next::Record {
                request,
                items: header.items,
            }
        } else {
            Next::Damaged(whole)
        })
    }

    /// Goes on to the next header after the broken one here.
    fn pass_over(&mut self) -> io::Result<Next> {
        let begin = self.at.offset;
        let mut from = begin + 1;
        loop {
            self.go_to(from.min(self.end))?;
            let left = self.end.saturating_sub(from);
            let bytes = self.read(left.min(STRIDE as u64))?;
            let place = Position {
                offset: from,
                ..self.at
            };
            let found = next_header(&bytes, place);
            let is_last = bytes.len() as u64 == left;
            if found.is_none() && !is_last {
                // A header may begin in this stride and end in the next.
                from += (bytes.len() - (HEADER - 1)) as u64;
                continue;
            }
            self.at.offset = found.map_or(self.end, |at| from + at as u64);
            self.go_to(self.at.offset)?;
            return Ok(Next::Damaged(self.at.offset - begin));
        }
    }

    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset)).map(drop)
    }

    fn read(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
