//! Cursor of a queue: the position up to which all records have been sent.
//!
//! If the cursor is missing or damaged, all records are sent again; no record is skipped.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::record::{Position, crc};

const FILE: &str = "cursor";

/// Reads the cursor in `folder`; `None` if it is missing or damaged.
pub(super) fn read(folder: &Path) -> io::Result<Option<Position>> {
    match fs::read(folder.join(FILE)) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the cursor atomically: after a crash, the file contains either the old or the new position.
///
/// Only the owner can read the file.
pub(super) fn write(folder: &Path, sent: Position) -> io::Result<()> {
    let mut bytes = [sent.segment.to_le_bytes(), sent.offset.to_le_bytes()].concat();
    bytes.extend_from_slice(&crc(&[&bytes]).to_le_bytes());
    let new = folder.join("cursor.new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?
        .write_all(&bytes)?;
    fs::rename(new, folder.join(FILE))
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let (numbers, checksum) = bytes.split_last_chunk()?;
    let (segment, offset) = numbers.split_first_chunk()?;
    let position = Position::new(
        u64::from_le_bytes(*segment),
        u64::from_le_bytes(offset.try_into().ok()?),
    );
    (u32::from_le_bytes(*checksum) == crc(&[numbers])).then_some(position)
}
