//! Format of a record: a header followed by an export request.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..4 | `PRq1` |
//! | 4..8 | length of the request |
//! | 8..12 | number of items in the request |
//! | 12..16 | CRC-32 of the request |
//! | 16..20 | CRC-32 of bytes 0..16 and of the record's position |
//!
//! Numbers are little-endian. The second checksum includes the position, so that received data that looks
//! like a record is not mistaken for one while a damaged file is searched for the next record.

use flate2::Crc;

const MAGIC: [u8; 4] = *b"PRq1";

/// Length of a header, in bytes.
pub(in crate::forward) const HEADER: usize = 20;

/// Position in a queue: the id of a segment, and a byte offset within the segment.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

impl Position {
    pub(super) fn new(segment: u64, offset: u64) -> Self {
        Self { segment, offset }
    }
}

/// Decoded header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    length: u32,
    pub(super) items: u32,
    checksum: u32,
}

impl Header {
    /// Returns the header of `request` with `items`; `None` when the request is too long for a record.
    pub(super) fn of(request: &[u8], items: u32) -> Option<Self> {
        Some(Self {
            length: u32::try_from(request.len()).ok()?,
            items,
            checksum: crc(&[request]),
        })
    }

    pub(super) fn record_length(&self) -> usize {
        HEADER + self.length as usize
    }

    pub(super) fn encode(&self, position: Position) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&self.length.to_le_bytes());
        header[8..12].copy_from_slice(&self.items.to_le_bytes());
        header[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = header_checksum(&header[..16], position);
        header[16..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// Decodes the header at the start of `bytes`, which were read at `position`; `None` if there is none.
    pub(super) fn decode(bytes: &[u8], position: Position) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let number = |at: usize| {
            let bytes = header[at..].first_chunk();
            bytes.copied().map_or(0, u32::from_le_bytes)
        };
        let is_valid = header[..4] == MAGIC && number(16) == header_checksum(&header[..16], position);
        is_valid.then(|| Self {
            length: number(4),
            items: number(8),
            checksum: number(12),
        })
    }

    pub(super) fn matches(&self, request: &[u8]) -> bool {
        crc(&[request]) == self.checksum
    }
}

/// Returns the offset of the next header in `bytes`, which were read at `position`.
pub(super) fn next_header(bytes: &[u8], position: Position) -> Option<usize> {
    memchr::memmem::find_iter(bytes, &MAGIC).find(|&at| {
        let position = Position::new(position.segment, position.offset + at as u64);
        Header::decode(&bytes[at..], position).is_some()
    })
}

fn header_checksum(header: &[u8], position: Position) -> u32 {
    let Position { segment, offset } = position;
    crc(&[header, &segment.to_le_bytes(), &offset.to_le_bytes()])
}

pub(super) fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    for part in parts {
        crc.update(part);
    }
    crc.sum()
}
