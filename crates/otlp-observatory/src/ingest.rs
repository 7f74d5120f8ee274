//! Queues exports from the receivers in a bounded queue, and masks, forwards and stores them on a separate
//! thread.
//!
//! The queue is bounded by encoded length, which is known without measuring allocations; a typical request
//! uses a small multiple of its encoded length in memory. Senders that are faster than the thread wait for room, and are
//! rejected only after a time limit. Exports are masked on the separate thread, so that
//! every export is masked and no request waits for masking.

mod export_queue;
mod received;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use self::export_queue::ExportQueue;
pub(crate) use self::{
    export_queue::Rejected,
    received::{Reason, Received},
};
use crate::{
    archive::Archive,
    export::{Export, Signal},
    forward::Forwarder,
    mask,
    store::{self, Store},
};

/// Maximum size of the queue in bytes: that of the largest request.
const QUEUE_LIMIT: usize = 16 << 20;

/// Maximum time for which a request waits to be decoded and queued. Exporters time out after ten seconds by default.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(2);

/// Handle with which the receivers submit exports.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    queue: Arc<ExportQueue>,
    received: Arc<Received>,
    max_item: usize,
}

/// Handle of the thread that processes exports. Dropping it closes the queue without waiting for the thread.
#[derive(Debug)]
pub(crate) struct IngestThread {
    queue: Arc<ExportQueue>,
    ended: oneshot::Receiver<()>,
}

impl Ingest {
    /// Starts the thread, which first restores what `archive` kept. With `mask`, stored exports are masked; forwarded
    /// exports
    /// always are.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub(crate) fn start(
        store: Arc<Store>,
        archive: Option<Arc<Archive>>,
        mask: bool,
        forwarder: Option<Forwarder>,
        received: Arc<Received>,
    ) -> io::Result<(Self, IngestThread)> {
        let queue = Arc::new(ExportQueue::new(QUEUE_LIMIT));
        let (running, ended) = oneshot::channel::<()>();
        let max_item = store.max_item();
        let exports = queue.clone();
        thread::Builder::new()
            .name("observatory-ingest".into())
            .spawn(move || {
                let _running = running;
                if let Some(archive) = &archive {
                    archive.restore(&store);
                }
                exports.consume(|export| {
                    catch_panic(export, |export| {
                        process(export, &store, archive.as_deref(), mask, forwarder.as_ref());
                    });
                });
                if let Some(archive) = &archive {
                    archive.finish();
                }
            })?;
        let ingest = Self {
            queue: queue.clone(),
            received,
            max_item,
        };
        Ok((ingest, IngestThread { queue, ended }))
    }

    /// Returns a handle that rejects every export.
    #[cfg(test)]
    pub(crate) fn that_is_full(received: Arc<Received>) -> Self {
        let queue = Arc::new(ExportQueue::new(0));
        Self {
            queue,
            received,
            max_item: usize::MAX,
        }
    }

    /// Returns a handle whose queue has room for `limit` bytes, and a function that processes exports until the queue
    /// closes.
    #[cfg(test)]
    pub(crate) fn that_is_paused(limit: usize, received: Arc<Received>) -> (Self, impl FnOnce() + Send) {
        let queue = Arc::new(ExportQueue::new(limit));
        let exports = queue.clone();
        let ingest = Self {
            queue,
            received,
            max_item: usize::MAX,
        };
        (ingest, move || exports.consume(drop))
    }

    /// Returns the maximum size of an item that the store keeps, in bytes.
    pub(crate) fn max_item(&self) -> usize {
        self.max_item
    }

    /// Queues `export`, which counts as `length` bytes, or rejects it as a whole if the queue has no room until
    /// `deadline`.
    pub(crate) async fn accept(
        &self,
        export: Export,
        length: usize,
        deadline: Instant,
    ) -> Result<(), Rejected> {
        let (signal, items) = (export.signal(), export.items());
        if self.queue.push(export, length, deadline).await? {
            self.received.count_delayed();
        }
        self.received.count_accepted(signal, items);
        Ok(())
    }

    /// Counts items that were removed from a request.
    pub(crate) fn count_refused(&self, signal: Signal, items: usize) {
        self.received.count_refused(signal, items);
    }

    /// Counts a rejected request.
    pub(crate) fn count_rejected(&self, reason: &str) {
        self.received.count_rejected(reason);
    }
}

impl IngestThread {
    /// Rejects further exports, and waits until all accepted exports are forwarded and stored.
    pub(crate) async fn finish(mut self) {
        self.queue.close();
        // The thread sends nothing, but drops the sender when it ends.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for IngestThread {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn process(
    mut export: Export,
    store: &Store,
    archive: Option<&Archive>,
    mask: bool,
    forwarder: Option<&Forwarder>,
) {
    let unmasked = (!mask).then(|| export.clone());
    // Masking comes first: if it panics, the export is neither forwarded nor stored.
    mask::mask(&mut export);
    if let Some(forwarder) = forwarder {
        forwarder.accept(&export);
    }
    let (export, now) = (unmasked.unwrap_or(export), store::now());
    if let Some(archive) = archive {
        archive.write(&export, now);
    }
    store.insert_at(export, now);
}

/// Calls `process` and logs a panic, which loses this export but does not end the thread.
fn catch_panic(export: Export, process: impl FnOnce(Export)) {
    let signal = export.signal();
    if catch_unwind(AssertUnwindSafe(|| process(export))).is_err() {
        telemetry::error!(
            telemetry.signal = ?signal,
            "a received request was lost because its processing panicked"
        );
    }
}

#[cfg(test)]
mod tests;
