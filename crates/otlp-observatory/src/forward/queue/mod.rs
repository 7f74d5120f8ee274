//! Queue of records on disk for one signal, appended by one thread and read in order by one sender.
//!
//! An appended record survives a crash of the process, and after the next [`DiskQueue::sync`] also a crash of the
//! machine. A record is read until it is [committed](DiskQueue::commit), and may be read again after a crash, so it is
//! delivered at least once.

mod budget;
mod cursor;
mod folder;
mod index;
mod record;
mod recovery;
mod segment;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

pub use self::folder::FolderError;
pub(super) use self::{budget::Budget, folder::Folder, record::HEADER};
use self::{
    index::{Index, Segment},
    record::{Header, Position},
    recovery::recover,
    segment::{Entry, Reader},
};
use crate::export::Signal;

/// Length in bytes at which a segment is closed, unless the limit of the queue is small.
const SEGMENT_LENGTH: u64 = 4 << 20;

/// Reason a record was not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    #[error("the queue is full")]
    Full,
    #[error("cannot write the queue: {0}")]
    Write(#[from] io::Error),
}

/// Records to send in one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Concatenated requests of the records; in protobuf, this is the encoding of the merged request.
    pub(super) request: Vec<u8>,
    pub(super) records: usize,
    pub(super) items: u64,
    /// Bytes skipped because they are not valid records.
    damaged: u64,
    /// Position after the last record.
    end: Position,
}

/// Queue of one signal.
#[derive(Debug)]
pub(super) struct DiskQueue {
    path: PathBuf,
    /// Holds the lock while the queue may write.
    _folder: Arc<Folder>,
    pub(super) signal: Signal,
    budget: Arc<Budget>,
    segment_length: u64,
    index: Mutex<Index>,
    appended: Notify,
}

impl DiskQueue {
    /// Opens the queue of `signal` in `folder`, with the records that an earlier process left.
    pub(super) fn open(folder: Arc<Folder>, signal: Signal, budget: Arc<Budget>) -> io::Result<Self> {
        let path = folder.path.join(signal.name());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let index = recover(&path)?;
        budget.add_existing(signal, index.length());
        Ok(Self {
            path,
            _folder: folder,
            signal,
            segment_length: SEGMENT_LENGTH.min(budget.limit / 32),
            budget,
            index: Mutex::new(index),
            appended: Notify::new(),
        })
    }

    /// Appends a record. `request` starts with [`HEADER`] bytes that are reserved for the header.
    pub(super) fn append(&self, mut request: Vec<u8>, items: u32) -> Result<(), AppendError> {
        let length = request.len() as u64;
        let Some(header) = Header::of(&request[HEADER..], items) else {
            return Err(AppendError::Full);
        };
        if !self.budget.reserve(self.signal, length) {
            return Err(AppendError::Full);
        }
        let mut index = self.index();
        let written = self.last_segment(&mut index).and_then(|(file, position)| {
            request[..HEADER].copy_from_slice(&header.encode(position));
            (&*file).write_all(&request)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                index.append(length, file);
                drop(index);
                self.appended.notify_one();
                Ok(())
            }
            Err(error) => {
                self.budget.release(self.signal, length);
                self.abandon_last_segment(&mut index);
                Err(error.into())
            }
        }
    }

    /// Returns the number of unsent bytes.
    pub(super) fn pending(&self) -> u64 {
        let index = self.index();
        index.length() - index.sent
    }

    /// Waits until a record has been appended since the last call.
    pub(super) async fn appended(&self) {
        self.appended.notified().await;
    }

    /// Reads the oldest records: at most `max_records`, and at most `max_bytes` unless the first record is longer. Returns
    /// `None` if the queue is empty. Blocks on the disk.
    pub(super) fn read(&self, max_bytes: usize, max_records: usize) -> io::Result<Option<Batch>> {
        let first = {
            let index = self.index();
            index.segments.front().map(|segment| (*segment, index.sent))
        };
        let Some((segment, sent)) = first else {
            return Ok(None);
        };
        let begin = Position::new(segment.id, sent);
        let end = Position::new(segment.id, segment.length);
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
        while batch.records < max_records {
            let room = match batch.records {
                0 => usize::MAX,
                _ => max_bytes.saturating_sub(batch.request.len()),
            };
            match reader.next(room) {
                Entry::Record { request, items } => {
                    batch.request.extend_from_slice(&request);
                    batch.records += 1;
                    batch.items += u64::from(items);
                }
                Entry::Damaged(bytes) => batch.damaged += bytes,
                Entry::TooLong => break,
                Entry::EndOfSegment => {
                    // Another program may have truncated the file.
                    batch.damaged += end.offset - reader.position.offset.min(end.offset);
                    batch.end = end;
                    return Ok(Some(batch));
                }
            }
        }
        batch.end = reader.position;
        Ok(Some(batch))
    }

    /// Marks the records of `batch` as sent. Blocks on the disk.
    ///
    /// After an error, the records are read again by the next process, but not by this one.
    pub(super) fn commit(&self, batch: &Batch) -> io::Result<()> {
        if batch.damaged > 0 {
            telemetry::warn!(
                telemetry.signal = self.signal.name(),
                queue.size = batch.damaged,
                "skipped a damaged part of the forwarding queue"
            );
        }
        let cursor = cursor::write(&self.path, batch.end);
        let deleted = self.index().commit(batch.end);
        let Some(segment) = deleted else {
            return cursor;
        };
        self.budget.release(self.signal, segment.length);
        let deleted = fs::remove_file(segment::path(&self.path, segment.id));
        cursor.and(deleted)
    }

    /// Flushes all appended records to the disk. Blocks.
    pub(super) fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut self.index().unsynced);
        if unsynced.is_empty() {
            return Ok(());
        }
        let mut synced = Ok(());
        for file in unsynced {
            synced = synced.and(file.sync_data());
        }
        // Persists the names of new segments.
        synced.and(File::open(&self.path)?.sync_all())
    }

    /// Returns the file to append to, and the position of the next record.
    fn last_segment(&self, index: &mut Index) -> io::Result<(Arc<File>, Position)> {
        if let (Some(file), Some(last)) = (&index.open, index.segments.back())
            && last.length < self.segment_length
        {
            return Ok((file.clone(), Position::new(last.id, last.length)));
        }
        let id = index.next_id;
        // An id is not reused if its file cannot be created, because the name may be taken.
        index.next_id += 1;
        let file = Arc::new(segment::create(&self.path, id)?);
        index.open = Some(file.clone());
        index.segments.push_back(Segment { id, length: 0 });
        Ok((file, Position::new(id, 0)))
    }

    /// Cleans up after a failed write: truncates the partial record, and starts a new segment with the next record.
    fn abandon_last_segment(&self, index: &mut Index) {
        let (Some(file), Some(last)) = (index.open.take(), index.segments.back().copied()) else {
            return;
        };
        // Errors are ignored: this process does not read the partial record, and the next one detects the damage.
        if last.length == 0 {
            index.segments.pop_back();
            let _ = fs::remove_file(segment::path(&self.path, last.id));
        } else {
            let _ = file.set_len(last.length);
        }
    }

    /// Locks the index. Poisoning is ignored, because a panic leaves the index unchanged.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
