//! The cursor of a queue: up to where its records were sent. A cursor that is lost or damaged means that everything is
//! sent again, never that something is not sent.

use std::{fs, io, path::Path};

use super::record::{Position, crc};

const FILE: &str = "cursor";
const LENGTH: usize = 20;

/// What the folder's cursor says; `None` when there is none that can be believed.
pub(super) fn read(folder: &Path) -> io::Result<Option<Position>> {
    match fs::read(folder.join(FILE)) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the cursor as a whole: a crash leaves the old one or the new.
pub(super) fn write(folder: &Path, sent: Position) -> io::Result<()> {
    let new = folder.join("cursor.new");
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend_from_slice(&sent.segment.to_le_bytes());
    bytes.extend_from_slice(&sent.offset.to_le_bytes());
    bytes.extend_from_slice(&crc(&[&bytes]).to_le_bytes());
    super::private_file(&new, &bytes)?;
    fs::rename(new, folder.join(FILE))
}

fn decode(bytes: &[u8]) -> Option<Position> {
    if bytes.len() != LENGTH {
        return None;
    }
    let (numbers, checksum) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*checksum) != crc(&[numbers]) {
        return None;
    }
    let (segment, offset) = numbers.split_first_chunk::<8>()?;
    Some(Position {
        segment: u64::from_le_bytes(*segment),
        offset: u64::from_le_bytes(offset.try_into().ok()?),
    })
}
