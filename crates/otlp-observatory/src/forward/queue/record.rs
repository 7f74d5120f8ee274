//! A record of the queue: an export request with a header that tells whether it is whole.
//!
//! | bytes | |
//! | --- | --- |
//! | 0..4 | `PRq1` |
//! | 4..8 | length of the request |
//! | 8..12 | its items |
//! | 12..16 | CRC-32 of the request |
//! | 16..20 | CRC-32 of the header so far, and of the place where it stands |
//!
//! Numbers are little-endian. The place is in the checksum so that text which was received, and looks like a record,
//! is not taken for one when a damaged file is searched for the next.

use flate2::Crc;

const MAGIC: [u8; 4] = *b"PRq1";

/// How long a header is.
pub(in crate::forward) const HEADER: usize = 20;

/// Where something is in a queue: a segment, and the bytes before it there.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) length: u32,
    pub(super) items: u32,
    checksum: u32,
}

impl Header {
    /// Of a `request` with so many `items`; `None` when it is too long for a record.
    pub(super) fn of(request: &[u8], items: u32) -> Option<Self> {
        Some(Self {
            length: u32::try_from(request.len()).ok()?,
            items,
            checksum: crc(&[request]),
        })
    }

    pub(super) fn encode(&self, place: Position) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&self.length.to_le_bytes());
        header[8..12].copy_from_slice(&self.items.to_le_bytes());
        header[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = header_checksum(&header[..16], place);
        header[16..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// The header at the beginning of `bytes`, which were read at `place`.
    pub(super) fn decode(bytes: &[u8], place: Position) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let number = |at: usize| {
            let mut number = [0; 4];
            number.copy_from_slice(&header[at..at + 4]);
            u32::from_le_bytes(number)
        };
        let is_whole = header[..4] == MAGIC && number(16) == header_checksum(&header[..16], place);
        is_whole.then(|| Self {
            length: number(4),
            items: number(8),
            checksum: number(12),
        })
    }

    pub(super) fn is_of(&self, request: &[u8]) -> bool {
        crc(&[request]) == self.checksum
    }
}

/// Where the next header stands in `bytes`, which were read at `place`.
pub(super) fn next_header(bytes: &[u8], place: Position) -> Option<usize> {
    memchr::memmem::find_iter(bytes, &MAGIC).find(|&at| {
        let place = Position {
            offset: place.offset + at as u64,
            ..place
        };
        Header::decode(&bytes[at..], place).is_some()
    })
}

fn header_checksum(header: &[u8], place: Position) -> u32 {
    crc(&[header, &place.segment.to_le_bytes(), &place.offset.to_le_bytes()])
}

pub(super) fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    for part in parts {
        crc.update(part);
    }
    crc.sum()
}
