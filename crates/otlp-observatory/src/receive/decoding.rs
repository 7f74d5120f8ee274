//! Decodes request bodies into exports with valid ids: decompresses a body, estimates its memory use, decodes
//! it and removes what cannot be kept. Large bodies are decoded on the blocking thread pool instead of the async worker
//! threads.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

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

/// Maximum number of bodies decoded on the blocking thread pool at the same time.
const MAX_DECODING: usize = 2;

/// Decoder with a concurrency limit for bodies decoded on the blocking thread pool.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    permits: Arc<Semaphore>,
    /// Maximum size of an item, in bytes.
    max_item: usize,
}

impl Decoder {
    pub(super) fn new(max_item: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_DECODING)),
            max_item,
        }
    }

    /// Decodes `body`; returns the export and the items that were removed from it.
    pub(super) async fn decode(
        &self,
        signal: Signal,
        encoding: Encoding,
        compression: Compression,
        body: Bytes,
    ) -> Result<(Export, Refused), Rejection> {
        let is_small = compression == Compression::Identity && body.len() <= SMALL_BODY;
        let max_item = self.max_item;
        let decode = move || {
            let plain = decompress(body, compression)?;
            let mut export = encoding.decode(signal, &plain)?;
            let refused = Refused::remove(&mut export, plain.len(), max_item);
            Ok((export, refused))
        };
        if is_small {
            return decode();
        }
        let permits = self.permits.clone();
        let permit = permits.acquire_owned().await.map_err(|_| Rejected::Closed)?;
        let decode = move || {
            // Decoding continues even if the sender disconnects, so the task owns the permit.
            let _permit = permit;
            decode()
        };
        tokio::task::spawn_blocking(decode)
            .await
            .unwrap_or(Err(Rejection::Internal))
    }
}
