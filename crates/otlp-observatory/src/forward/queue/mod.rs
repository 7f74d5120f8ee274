//! A queue on disk for one signal: records are appended by one thread and taken in order by one sender. What was
//! appended survives the process at once, and the machine from the next [`Queue::sync`] on. A record is read again until
//! it is [committed](Queue::commit), and after a crash perhaps once more: it is delivered at least once.

mod budget;
mod cursor;
mod folder;
mod record;
mod recovery;
mod segment;

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

pub use self::folder::FolderError;
pub(super) use self::{budget::Budget, folder::Folder, record::HEADER};
use self::{
    record::{Header, Position},
    recovery::recover,
    segment::{Next, Reader},
};
use crate::export::Signal;

/// A segment is closed at this length; of a small limit it is a small part.
const SEGMENT: u64 = 4 << 20;

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    #[error("the queue is full")]
    Full,
    #[error("the queue cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Records that are sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Their requests, one after the other: concatenated encodings of a message are the encoding of them merged.
    pub(super) request: Vec<u8>,
    pub(super) records: usize,
    pub(super) items: u64,
    /// Bytes among them that were no records.
    damaged: u64,
    end: Position,
}

#[derive(Debug)]
pub(super) struct Queue {
    path: PathBuf,
    /// Locked as long as anything may write here.
    _folder: Arc<Folder>,
    signal: Signal,
    budget: Arc<Budget>,
    segment_length: u64,
    state: Mutex<State>,
    arrived: Notify,
}

/// Segments are deleted as soon as nothing in them is to be sent, the last one too: an empty queue has none.
#[derive(Debug, Default)]
struct State {
    segments: VecDeque<Segment>,
    /// How much of the first segment was sent.
    sent: u64,
    /// The last segment, while it is appended to.
    open: Option<Arc<File>>,
    unsynced: Vec<Arc<File>>,
    next_id: u64,
    pending: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    id: u64,
    length: u64,
}

impl Queue {
    /// The queue of `signal` in `folder`, with what another process left in it.
    pub(super) fn open(folder: Arc<Folder>, signal: Signal, budget: Arc<Budget>) -> io::Result<Self> {
        let path = folder.path().join(signal.name());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let state = recover(&path)?;
        budget.count(signal, state.segments.iter().map(|segment| segment.length).sum());
        Ok(Self {
            path,
            _folder: folder,
            signal,
            segment_length: SEGMENT.min(budget.limit() / 32),
            budget,
            state: Mutex::new(state),
            arrived: Notify::new(),
        })
    }

    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    /// Appends `request`, which begins with [`HEADER`] bytes for the header.
    pub(super) fn append(&self, mut request: Vec<u8>, items: u32) -> Result<(), AppendError> {
        let length = request.len() as u64;
        let Some(header) = Header::of(&request[HEADER..], items) else {
            return Err(AppendError::Full);
        };
        if !self.budget.take(self.signal, length) {
            return Err(AppendError::Full);
        }
        let mut state = self.state();
        let written = self.last_segment(&mut state).and_then(|(file, place)| {
            request[..HEADER].copy_from_slice(&header.encode(place));
            (&*file).write_all(&request)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                state.grow(length);
                if !state.unsynced.iter().any(|other| Arc::ptr_eq(other, &file)) {
                    state.unsynced.push(file);
                }
                drop(state);
                self.arrived.notify_one();
                Ok(())
            }
            Err(error) => {
                self.budget.give_back(self.signal, length);
                self.abandon_last_segment(&mut state);
                Err(error.into())
            }
        }
    }

    /// Bytes that are to be sent.
    pub(super) fn pending(&self) -> u64 {
        self.state().pending
    }

    /// Waits until something was appended since the last time.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The oldest records, in at most so many bytes (but for a single one) and at most so many; `None` when there are
    /// none. Reads the disk.
    pub(super) fn read(&self, longest: usize, most: usize) -> io::Result<Option<Batch>> {
        let (segment, sent) = {
            let state = self.state();
            let Some(segment) = state.segments.front() else {
                return Ok(None);
            };
            (*segment, state.sent)
        };
        let begin = Position {
            segment: segment.id,
            offset: sent,
        };
        let end = Position {
            offset: segment.length,
            ..begin
        };
        let mut reader = match Reader::open(&self.path, begin, end.offset) {
            Ok(reader) => reader,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Batch {
                    damaged: end.offset - begin.offset,
                    end,
                    ..Batch::default()
                }));
            }
            Err(error) => return Err(error),
        };
        let mut batch = Batch::default();
        while batch.records < most {
            let room = match batch.records {
                0 => u64::MAX,
                _ => longest.saturating_sub(batch.request.len()) as u64,
            };
            match reader.next(room)? {
                Next::Record { request, items } => {
                    batch.request.extend_from_slice(&request);
                    batch.records += 1;
                    batch.items += u64::from(items);
                }
                Next::Damaged(bytes) => batch.damaged += bytes,
                Next::TooLong => break,
                Next::End => {
                    // Less when somebody has cut the file.
                    batch.damaged += end.offset - reader.at().offset.min(end.offset);
                    batch.end = end;
                    return Ok(Some(batch));
                }
            }
        }
        batch.end = reader.at();
        Ok(Some(batch))
    }

    /// Forgets what is in `batch`, and before. Writes the disk; when that fails it is forgotten all the same, but not
    /// by the next process.
    pub(super) fn commit(&self, batch: &Batch) -> io::Result<()> {
        if batch.damaged > 0 {
            telemetry::warn!(
                signal = self.signal.name(),
                bytes = batch.damaged,
                "a part of the forwarding queue is damaged and left out"
            );
        }
        let cursor = cursor::write(&self.path, batch.end);
        let deleted = self.state().forget(batch.end);
        let Some(segment) = deleted else {
            return cursor;
        };
        self.budget.give_back(self.signal, segment.length);
        let deleted = fs::remove_file(segment::path(&self.path, segment.id));
        cursor.and(deleted)
    }

    /// Whether something was appended since the last [`Self::sync`].
    pub(super) fn is_unsynced(&self) -> bool {
        !self.state().unsynced.is_empty()
    }

    /// Waits until all that was appended is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut self.state().unsynced);
        if unsynced.is_empty() {
            return Ok(());
        }
        for file in unsynced {
            file.sync_data()?;
        }
        // The names of new segments.
        File::open(&self.path)?.sync_all()
    }

    /// The segment to append to, and where its next record stands.
    fn last_segment(&self, state: &mut State) -> io::Result<(Arc<File>, Position)> {
        if let (Some(file), Some(last)) = (&state.open, state.segments.back())
            && last.length < self.segment_length
        {
            let place = Position {
                segment: last.id,
                offset: last.length,
            };
            return Ok((file.clone(), place));
        }
        let id = state.next_id;
        // Not again, even if it cannot be made: something with its name may be there.
        state.next_id += 1;
        let file = Arc::new(segment::create(&self.path, id)?);
        state.open = Some(file.clone());
        state.segments.push_back(Segment { id, length: 0 });
        let place = Position {
            segment: id,
            offset: 0,
        };
        Ok((file, place))
    }

    /// After a write that failed: what it left is cut off, and the next record goes into a new segment.
    fn abandon_last_segment(&self, state: &mut State) {
        let (Some(file), Some(last)) = (state.open.take(), state.segments.back().copied()) else {
            return;
        };
        // What stays is not read by this process and recognised as damaged by the next.
        if last.length == 0 {
            state.segments.pop_back();
            let _ = fs::remove_file(segment::path(&self.path, last.id));
        } else {
            let _ = file.set_len(last.length);
        }
    }

    /// Its changes are complete before anything that panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn grow(&mut self, length: u64) {
        if let Some(last) = self.segments.back_mut() {
            last.length += length;
            self.pending += length;
        }
    }

    /// Forgets everything up to `end`, which is in the first segment. Gives the segment when nothing is left in it.
    fn forget(&mut self, end: Position) -> Option<Segment> {
        let first = *self.segments.front().filter(|first| first.id == end.segment)?;
        self.pending = self.pending.saturating_sub(end.offset.saturating_sub(self.sent));
        if end.offset < first.length {
            self.sent = end.offset;
            return None;
        }
        self.sent = 0;
        self.segments.pop_front();
        if self.segments.is_empty() {
            // The disk has its room back when the file is closed.
            self.open = None;
        }
        Some(first)
    }
}

/// Writes a small file for its owner alone.
fn private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}
