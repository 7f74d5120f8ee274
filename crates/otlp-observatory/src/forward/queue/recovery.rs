//! Recovers the queue that an earlier process left in its folder.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use super::{
    cursor,
    index::{Index, Segment},
    record::Position,
    segment::{self, Entry, Reader},
};

/// Lists the segments in `folder`, and deletes those that have been sent.
///
/// A partially written record at the end is cut off. The reader detects damage elsewhere.
pub(super) fn recover(folder: &Path) -> io::Result<Index> {
    let cursor = cursor::read(folder)?.unwrap_or_default();
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(id) = entry.file_name().to_str().and_then(segment::id) {
            let length = entry.metadata()?.len();
            segments.push(Segment { id, length });
        }
    }
    segments.sort_by_key(|segment| segment.id);
    let newest = segments.last().map_or(0, |last| last.id);
    let sent = |segment: &Segment| match segment.id == cursor.segment {
        true => cursor.offset.min(segment.length),
        false => 0,
    };
    if let Some(last) = segments.last_mut() {
        let complete = complete_length(folder, *last, sent(last))?;
        if complete < last.length {
            telemetry::warn!(
                queue.folder = %folder.display(),
                queue.size = last.length - complete,
                "cut off the last record of the forwarding queue, which was incomplete"
            );
            OpenOptions::new()
                .write(true)
                .open(segment::path(folder, last.id))?
                .set_len(complete)?;
            last.length = complete;
        }
    }
    let mut index = Index {
        next_id: newest.max(cursor.segment).saturating_add(1),
        ..Index::default()
    };
    for segment in segments {
        if segment.id < cursor.segment || sent(&segment) == segment.length {
            fs::remove_file(segment::path(folder, segment.id))?;
            continue;
        }
        if index.segments.is_empty() {
            index.sent = sent(&segment);
        }
        index.segments.push_back(segment);
    }
    Ok(index)
}

/// Returns the length of `segment` up to the end of its last complete record.
fn complete_length(folder: &Path, segment: Segment, sent: u64) -> io::Result<u64> {
    let mut reader = Reader::open(folder, Position::new(segment.id, sent), segment.length)?;
    let mut complete = sent;
    loop {
        match reader.next(usize::MAX) {
            Entry::Record { .. } => complete = reader.position.offset,
            Entry::Damaged(_) => {}
            Entry::TooLong | Entry::EndOfSegment => return Ok(complete),
        }
    }
}
