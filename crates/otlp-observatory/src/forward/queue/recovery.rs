//! What another process left in a queue's folder, made ready to go on with.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use super::{
    Segment, State, cursor,
    record::Position,
    segment::{self, Next, Reader},
};

/// What the last process left. What it was writing when it ended is cut off; what is damaged elsewhere is found when it
/// is read.
pub(super) fn recover(folder: &Path) -> io::Result<State> {
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
        let whole = whole_length(folder, *last, sent(last))?;
        if whole < last.length {
            telemetry::warn!(
                folder = %folder.display(),
                bytes = last.length - whole,
                "the end of the forwarding queue was not written to its end and is cut off"
            );
            OpenOptions::new()
                .write(true)
                .open(segment::path(folder, last.id))?
                .set_len(whole)?;
            last.length = whole;
        }
    }
    let mut state = State {
        next_id: newest.max(cursor.segment).saturating_add(1),
        ..State::default()
    };
    for segment in segments {
        if segment.id < cursor.segment || sent(&segment) == segment.length {
            fs::remove_file(segment::path(folder, segment.id))?;
            continue;
        }
        if state.segments.is_empty() {
            state.sent = sent(&segment);
        }
        state.pending += segment.length - sent(&segment);
        state.segments.push_back(segment);
    }
    Ok(state)
}

/// Up to where `segment` has whole records.
fn whole_length(folder: &Path, segment: Segment, sent: u64) -> io::Result<u64> {
    let begin = Position {
        segment: segment.id,
        offset: sent,
    };
    let mut reader = Reader::open(folder, begin, segment.length)?;
    let mut whole = sent;
    loop {
        match reader.next(u64::MAX)? {
            Next::Record { .. } => whole = reader.at().offset,
            Next::Damaged(_) => {}
            Next::TooLong | Next::End => return Ok(whole),
        }
    }
}
