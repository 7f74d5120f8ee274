//! Decodes request bodies into exports with valid ids: decompresses a body, estimates its memory use, decodes
//! it and removes what cannot be kept. Large bodies are decoded on the blocking thread pool instead of the async worker
//! threads.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    body::{Compression, decompress},
    encoding::Encoding,
    refused::Refused,
    rejection::Rejection,
};
use crate::{
    export::{Export, Signal},
    ingest::Rejected,
};

/// Maximum length of an uncompressed body that is decoded in place, in bytes.
///
/// Decoding it takes less than a millisecond. Larger bodies are decoded on the blocking thread pool, as are
/// compressed bodies, whose decompressed length is unknown.
const SMALL_BODY: usize = 32 << 10;

/// Maximum number of large bodies that are being decoded, or are decoded and not yet in the queue.
const MAX_LARGE: usize = 2;

/// Maximum number of small bodies that are decoded and not yet in the queue.
const MAX_SMALL: usize = 64;

/// Maximum size of an export's messages relative to the bytes that it counts in the queue. Those of real senders are a few
/// times larger than their encoding; two bytes may encode an item of several hundred.
const MAX_EXPANSION: usize = 8;

/// Decoder with a limit for the exports that are not yet in the queue, whose bytes the queue does not count.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    large: Arc<Semaphore>,
    small: Arc<Semaphore>,
    /// Maximum size of an item, in bytes.
    max_item: usize,
}

/// Decoded request, which holds a permit until it is dropped.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) export: Export,
    /// Size that counts in the queue, in bytes: the length of the decompressed body, or more if its messages are much
    /// larger.
    pub(super) length: usize,
    /// Items that were removed from the export.
    pub(super) refused: Refused,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Decoder {
    pub(super) fn new(max_item: usize) -> Self {
        Self {
            large: Arc::new(Semaphore::new(MAX_LARGE)),
            small: Arc::new(Semaphore::new(MAX_SMALL)),
            max_item,
        }
    }

    /// Decodes `body`, unless others hold the permits until `deadline`.
    pub(super) async fn decode(
        &self,
        signal: Signal,
        encoding: Encoding,
        compression: Compression,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Decoded, Rejection> {
        let is_small = compression == Compression::Identity && body.len() <= SMALL_BODY;
        let max_item = self.max_item;
        let permits = if is_small { &self.small } else { &self.large };
        let permit = timeout_at(deadline, permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| Rejected::Overloaded)?;
        let permit = permit.map_err(|_| Rejected::Closed)?;
        // Decoding continues even if the sender disconnects, so the closure owns the permit.
        let decode = move || {
            let plain = decompress(body, compression)?;
            let (mut export, size) = encoding.decode(signal, &plain)?;
            let refused = Refused::remove(&mut export, plain.len(), max_item);
            Ok(Decoded {
                export,
                length: plain.len().max(size / MAX_EXPANSION),
                refused,
                permit,
            })
        };
        if is_small {
            return decode();
        }
        tokio::task::spawn_blocking(decode)
            .await
            .unwrap_or(Err(Rejection::Internal))
    }
}
