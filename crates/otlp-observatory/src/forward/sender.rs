//! Sends the queue of one signal in order, a batch at a time. Each batch is retried until the backend accepts or
//! rejects it. The signals are independent of each other.

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
    back_off::{BackOff, at_least},
    exchange::{Exchange, Verdict},
    progress::{Progress, SignalProgress},
    queue::{Batch, DiskQueue},
    timing::Timing,
};

/// Deadline for sending, set when forwarding is to finish.
pub(super) type Deadline = watch::Receiver<Option<Instant>>;

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) queue: Arc<DiskQueue>,
    pub(super) exchange: Arc<Exchange>,
    pub(super) progress: Arc<Progress>,
    pub(super) timing: Timing,
    pub(super) deadline: Deadline,
    pub(super) back_off: BackOff,
}

/// The deadline passed, or the next attempt would be after it.
#[derive(Debug)]
struct DeadlinePassed;

/// Result of delivering a batch.
#[derive(PartialEq)]
enum Delivery {
    Accepted,
    Dropped,
    /// The backend rejects the content of at least one record; the batch must be split to find it.
    Split,
}

impl Sender {
    /// Sends until the deadline passes, or until the queue is empty after a deadline was set.
    ///
    /// Operations on the queue's files are never interrupted.
    pub(super) async fn run(mut self) {
        // `DeadlinePassed` only ends the loop.
        let _ = self.send_all().await;
    }

    async fn send_all(&mut self) -> Result<(), DeadlinePassed> {
        let mut max_records = self.timing.batch_records;
        while self.wait_for_records().await {
            let Some((batch, body)) = self.read(max_records).await? else {
                continue;
            };
            if batch.records == 0 {
                self.commit(batch).await;
                continue;
            }
            let delivery = tokio::select! {
                biased;
                () = passed(self.deadline.clone()) => return Err(DeadlinePassed),
                delivery = self.deliver(&batch, body) => delivery?,
            };
            if delivery == Delivery::Split {
                max_records = batch.records / 2;
                continue;
            }
            self.commit(batch).await;
            max_records = (max_records * 2).min(self.timing.batch_records);
            if delivery == Delivery::Dropped {
                // Limits the loss if the backend rejects every request.
                self.back_off().await?;
            }
        }
        Ok(())
    }

    /// Waits for a record, and for up to the linger time for more. Returns false if the queue is empty and sending
    /// should end.
    async fn wait_for_records(&mut self) -> bool {
        while self.queue.pending() == 0 {
            tokio::select! {
                () = self.queue.appended() => {}
                _ = self.deadline.wait_for(Option::is_some) => return self.queue.pending() > 0,
            }
        }
        let full_batch = async {
            while self.queue.pending() < self.timing.batch_bytes as u64 {
                self.queue.appended().await;
            }
        };
        tokio::select! {
            _ = timeout(self.timing.linger, full_batch) => {}
            _ = self.deadline.wait_for(Option::is_some) => {}
        }
        true
    }

    /// Reads the next batch and compresses its body. Returns `None` if there is none, or after a back-off if it cannot
    /// be read.
    async fn read(&mut self, max_records: usize) -> Result<Option<(Batch, Bytes)>, DeadlinePassed> {
        let queue = self.queue.clone();
        let max_bytes = self.timing.batch_bytes;
        let read = blocking(move || {
            let Some(mut batch) = queue.read(max_bytes, max_records)? else {
                return Ok(None);
            };
            let body = gzip(&std::mem::take(&mut batch.request))?;
            Ok(Some((batch, body)))
        });
        match read.await {
            Ok(batch) => Ok(batch),
            Err(error) => {
                self.progress().disk.failed(&error, None);
                self.back_off().await?;
                Ok(None)
            }
        }
    }

    /// Sends `batch` until the backend accepts or rejects it.
    async fn deliver(&mut self, batch: &Batch, body: Bytes) -> Result<Delivery, DeadlinePassed> {
        let mut token_renewed = false;
        loop {
            let (error, retry_after) = match self.exchange.post(self.queue.signal, body.clone()).await {
                Verdict::Accepted { rejected_items } => {
                    self.back_off.reset();
                    self.progress().accepted(batch.items, rejected_items);
                    return Ok(Delivery::Accepted);
                }
                Verdict::ContentRejected(_) if batch.records > 1 => return Ok(Delivery::Split),
                Verdict::ContentRejected(error) | Verdict::Rejected(error) => {
                    self.progress().dropped(batch, &error);
                    return Ok(Delivery::Dropped);
                }
                Verdict::Unauthorized(_) if !token_renewed => {
                    token_renewed = true;
                    continue;
                }
                Verdict::Unauthorized(error) => (error, None),
                Verdict::Retry(error, retry_after) => (error, retry_after),
            };
            self.progress().sending.failed(&error, None);
            let delay = match retry_after {
                Some(delay) => at_least(delay.min(self.timing.max_retry_after)),
                None => self.back_off.next_delay(),
            };
            self.pause(delay).await?;
        }
    }

    async fn commit(&self, batch: Batch) {
        let queue = self.queue.clone();
        let disk = &self.progress().disk;
        match blocking(move || queue.commit(&batch)).await {
            Ok(()) => disk.succeeded(),
            Err(error) => disk.failed(&error, None),
        }
    }

    async fn back_off(&mut self) -> Result<(), DeadlinePassed> {
        let delay = self.back_off.next_delay();
        self.pause(delay).await
    }

    /// Waits for `delay`, unless the deadline is earlier.
    async fn pause(&mut self, delay: Duration) -> Result<(), DeadlinePassed> {
        let end = Instant::now() + delay;
        tokio::select! {
            biased;
            _ = self.deadline.wait_for(|deadline| deadline.is_some_and(|at| at <= end)) => Err(DeadlinePassed),
            () = sleep_until(end) => Ok(()),
        }
    }

    fn progress(&self) -> &SignalProgress {
        self.progress.of(self.queue.signal)
    }
}

/// Waits until the deadline has passed. Returns immediately if the forwarder has been dropped.
async fn passed(mut deadline: Deadline) {
    let at = deadline.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    if let Some(at) = at {
        sleep_until(at).await;
    }
}

/// Syncs the queues every `interval`, until a deadline is set or the forwarder is dropped.
pub(super) async fn sync_regularly(
    queues: Arc<[Arc<DiskQueue>]>,
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

/// Writes everything appended to the queues through to the disk.
pub(super) async fn sync(queues: &[Arc<DiskQueue>], progress: &Progress) {
    for queue in queues {
        let (signal, queue) = (queue.signal, queue.clone());
        if let Err(error) = blocking(move || queue.sync()).await {
            progress.of(signal).disk.failed(&error, None);
        }
    }
}

/// Runs `work`, which waits for the disk, on the blocking thread pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

fn gzip(request: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(request.len() / 4), Compression::fast());
    encoder.write_all(request)?;
    Ok(encoder.finish()?.into())
}
