//! Sends what one signal's queue holds, in order, one batch at a time, until the backend has taken it or will never do.
//! The signals do not wait for each other. What fails is logged when it begins and when it ends.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    exchange::{Exchange, Outcome},
    pace::{BackOff, Pace, not_before},
    progress::Progress,
    queue::{Batch, Queue},
};
use crate::export::Signal;

/// Until when sending may go on, once it is to end.
pub(super) type Deadline = watch::Receiver<Option<Instant>>;

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) signal: Signal,
    pub(super) queue: Arc<Queue>,
    pub(super) exchange: Arc<Exchange>,
    pub(super) progress: Arc<Progress>,
    pub(super) pace: Pace,
    pub(super) deadline: Deadline,
}

/// There is no time left.
#[derive(Debug)]
struct Stopped;

impl Sender {
    /// Sends until the deadline has passed, or the queue is empty after one was set. What is done with the queue's files
    /// is never broken off.
    pub(super) async fn run(self) {
        // That there is no time left has no consequence but the end.
        let _ = self.send_all().await;
    }

    async fn send_all(&self) -> Result<(), Stopped> {
        let mut back_off = BackOff::new(&self.pace);
        let mut most = self.pace.batch_records;
        while self.wait_for_records().await {
            let Some((batch, body)) = self.read(most, &mut back_off).await? else {
                continue;
            };
            if batch.records == 0 {
                self.commit(batch).await;
                continue;
            }
            let more = (most * 2).min(self.pace.batch_records);
            let delivery = tokio::select! {
                biased;
                () = self.time_is_up() => return Err(Stopped),
                delivery = self.deliver(&batch, body, &mut back_off) => delivery?,
            };
            match delivery {
                Delivery::Done => {
                    self.commit(batch).await;
                    most = more;
                }
                Delivery::Dropped => {
                    self.commit(batch).await;
                    most = more;
                    // A backend that refuses everything should not get, and lose, everything at full speed.
                    self.pause(back_off.pause()).await?;
                }
                // One of them may be what the backend does not like: only that one shall be lost.
                Delivery::Smaller => most = batch.records / 2,
            }
        }
        Ok(())
    }

    /// Waits for something to send, and a little longer for more of it. False when there is nothing, and it should end.
    async fn wait_for_records(&self) -> bool {
        let mut deadline = self.deadline.clone();
        while self.queue.pending() == 0 {
            if deadline.borrow_and_update().is_some() {
                return false;
            }
            tokio::select! {
                () = self.queue.arrived() => {}
                changed = deadline.changed() => if changed.is_err() { return false },
            }
        }
        let enough = async {
            while self.queue.pending() < self.pace.batch_bytes as u64 {
                self.queue.arrived().await;
            }
        };
        if deadline.borrow_and_update().is_none() {
            tokio::select! {
                _ = timeout(self.pace.linger, enough) => {}
                _ = deadline.changed() => {}
            }
        }
        true
    }

    /// The next batch and its body; `None` when it could not be read.
    async fn read(&self, most: usize, back_off: &mut BackOff) -> Result<Option<(Batch, Bytes)>, Stopped> {
        let queue = self.queue.clone();
        let longest = self.pace.batch_bytes;
        let read = spawn_blocking(move || {
            let Some(mut batch) = queue.read(longest, most)? else {
                return Ok(None);
            };
            let body = gzip(&std::mem::take(&mut batch.request))?;
            Ok(Some((batch, body)))
        });
        let error = match read.await {
            Ok(Ok(batch)) => return Ok(batch),
            Ok(Err(error)) => error,
            Err(panic) => io::Error::other(panic),
        };
        self.progress.disk_failed(self.signal, &error);
        self.pause(back_off.pause()).await?;
        Ok(None)
    }

    async fn deliver(&self, batch: &Batch, body: Bytes, back_off: &mut BackOff) -> Result<Delivery, Stopped> {
        let mut is_renewed = false;
        loop {
            let (error, wait) = match self.exchange.post(self.signal, body.clone()).await {
                Outcome::Taken { rejected } => {
                    back_off.reset();
                    self.progress.taken(self.signal, batch.items, rejected);
                    return Ok(Delivery::Done);
                }
                Outcome::Refused(error) if batch.records > 1 && error.is_about_content() => {
                    return Ok(Delivery::Smaller);
                }
                Outcome::Refused(error) => {
                    self.progress.dropped(self.signal, batch, &error);
                    return Ok(Delivery::Dropped);
                }
                Outcome::Unauthorized(_) if !is_renewed => {
                    is_renewed = true;
                    continue;
                }
                Outcome::Unauthorized(error) => (error, None),
                Outcome::Later(error, wait) => (error, wait),
            };
            let wait = match wait {
                Some(asked) => not_before(asked.min(self.pace.longest_wish)),
                None => back_off.pause(),
            };
            self.progress.failed(self.signal, &error);
            self.pause(wait).await?;
        }
    }

    async fn commit(&self, batch: Batch) {
        let queue = self.queue.clone();
        let committed = spawn_blocking(move || queue.commit(&batch)).await;
        match committed.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => self.progress.disk_works(self.signal),
            Err(error) => self.progress.disk_failed(self.signal, &error),
        }
    }

    /// Returns when there is a deadline, and it has passed; at once when nobody can set one any more.
    async fn time_is_up(&self) {
        let mut deadline = self.deadline.clone();
        let end = match deadline.wait_for(Option::is_some).await {
            Ok(end) => *end,
            Err(_) => None,
        };
        if let Some(end) = end {
            sleep_until(end).await;
        }
    }

    /// Waits, unless that would take longer than there is time for.
    async fn pause(&self, pause: Duration) -> Result<(), Stopped> {
        let mut deadline = self.deadline.clone();
        let end = Instant::now() + pause;
        loop {
            if deadline
                .borrow_and_update()
                .is_some_and(|deadline| deadline <= end)
            {
                return Err(Stopped);
            }
            tokio::select! {
                () = sleep_until(end) => return Ok(()),
                changed = deadline.changed() => if changed.is_err() { return Err(Stopped) },
            }
        }
    }
}

/// What became of a batch.
#[derive(Debug)]
enum Delivery {
    Done,
    Dropped,
    Smaller,
}

/// Puts what was accepted on the disk now and then, until nobody can accept any more.
pub(super) async fn sync_regularly(
    queues: Arc<[Arc<Queue>]>,
    progress: Arc<Progress>,
    interval: Duration,
    mut deadline: Deadline,
) {
    loop {
        tokio::select! {
            () = sleep(interval) => {}
            _ = deadline.wait_for(Option::is_some) => return,
        }
        sync(&queues, &progress).await;
    }
}

pub(super) async fn sync(queues: &[Arc<Queue>], progress: &Progress) {
    for queue in queues.iter().filter(|queue| queue.is_unsynced()) {
        let (signal, queue) = (queue.signal(), queue.clone());
        let synced = spawn_blocking(move || queue.sync()).await;
        if let Err(error) = synced.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            progress.disk_failed(signal, &error);
        }
    }
}

fn gzip(request: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(request.len() / 4), Compression::fast());
    encoder.write_all(request)?;
    Ok(encoder.finish()?.into())
}
