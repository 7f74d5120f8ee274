//! Takes what was received from the receivers' hands at once, and puts it, masked, into the forwarder and the store on a
//! thread of its own. The queue between is bounded in bytes; when it is full the sender is told to come back.
//!
//! The bound is on the encoded length: it is known without asking the allocator, and what an honest sender's request
//! takes in memory is a small multiple of it. Masking happens on the thread, so that nothing gets past it and no request
//! waits for it.

mod counts;
mod queue;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use tokio::sync::oneshot;

pub(crate) use counts::Counts;
use queue::Queue;
pub(crate) use queue::Refused;

use crate::{export::Export, forward::Forwarder, mask, store::Store};

/// How much may wait, in bytes as encoded.
const QUEUE_LIMIT: usize = 32 << 20;

/// Where receivers hand over what they decoded.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    queue: Arc<Queue>,
    counts: Arc<Counts>,
}

/// The thread behind an [`Ingest`]. Dropping it closes the queue without waiting for what is in it.
#[derive(Debug)]
pub(crate) struct Ingesting {
    queue: Arc<Queue>,
    ended: oneshot::Receiver<()>,
}

impl Ingest {
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(
        store: Arc<Store>,
        forwarder: Option<Forwarder>,
        counts: Arc<Counts>,
    ) -> io::Result<(Self, Ingesting)> {
        let queue = Arc::new(Queue::new(QUEUE_LIMIT));
        let (alive, ended) = oneshot::channel::<()>();
        let exports = queue.clone();
        thread::Builder::new()
            .name("observatory-ingest".into())
            .spawn(move || {
                let _alive = alive;
                exports
                    .take_each(|export| guarded(export, |export| take(export, &store, forwarder.as_ref())));
            })?;
        let ingest = Self {
            queue: queue.clone(),
            counts,
        };
        Ok((ingest, Ingesting { queue, ended }))
    }

    /// Takes nothing, ever.
    #[cfg(test)]
    pub(crate) fn that_is_full(counts: Arc<Counts>) -> Self {
        let queue = Arc::new(Queue::new(0));
        Self { queue, counts }
    }

    /// Accepts `export`, or refuses it whole. Never blocks.
    pub(crate) fn accept(&self, export: Export) -> Result<(), Refused> {
        let (signal, items) = (export.signal(), export.items());
        let length = export.encoded_len();
        self.queue.push(export, length)?;
        self.counts.received(signal, items);
        Ok(())
    }

    /// Counts a request that was not accepted, for whatever reason.
    pub(crate) fn count_refused(&self) {
        self.counts.refused();
    }
}

impl Ingesting {
    /// Refuses what comes from now on, and returns when everything accepted before is in the store and the forwarder.
    pub(crate) async fn finish(mut self) {
        self.queue.close();
        // The thread sends nothing: its end drops the other half.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Ingesting {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// What could not be masked goes nowhere.
fn take(mut export: Export, store: &Store, forwarder: Option<&Forwarder>) {
    mask::mask(&mut export);
    if let Some(forwarder) = forwarder {
        forwarder.accept(&export);
    }
    store.insert(export);
}

/// A panic costs this one export; the thread lives on.
fn guarded(export: Export, take: impl FnOnce(Export)) {
    let signal = export.signal();
    if catch_unwind(AssertUnwindSafe(|| take(export))).is_err() {
        telemetry::error!(?signal, "a received request was lost to a panic");
    }
}

#[cfg(test)]
mod tests;
