//! From a body, as it came, to an export with valid ids: decompressed, weighed, decoded, and not on the asynchronous
//! threads when that takes long.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    body::{Compression, decompress},
    encoding::Encoding,
    ids::{self, RejectedSpans},
    refusal::Refusal,
};
use crate::{
    export::{Export, Signal},
    ingest::Refused,
};

/// Bodies up to this length, in bytes, are decoded at once, in less than a millisecond; others, and compressed ones,
/// whose length says little, leave the asynchronous threads to other requests.
const SMALL_BODY: usize = 32 << 10;

/// How many bodies that are not small are decompressed and decoded at a time.
const MAX_DECODING: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Decoder {
    turns: Arc<Semaphore>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(MAX_DECODING)),
        }
    }

    pub(super) async fn decode(
        &self,
        signal: Signal,
        encoding: Encoding,
        compression: Compression,
        body: Bytes,
    ) -> Result<(Export, Option<RejectedSpans>), Refusal> {
        let is_small = compression == Compression::Identity && body.len() <= SMALL_BODY;
        let decode = move || {
            let plain = decompress(body, compression)?;
            let mut export = encoding.decode(signal, &plain)?;
            let rejected = ids::check(&mut export);
            Ok((export, rejected))
        };
        if is_small {
            return decode();
        }
        let turn = self.turn().await?;
        let decode = move || {
            // Not given up when the sender goes away, because the work goes on.
            let _turn = turn;
            decode()
        };
        tokio::task::spawn_blocking(decode)
            .await
            .unwrap_or(Err(Refusal::Broken))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let turns = self.turns.clone();
        turns.acquire_owned().await.map_err(|_| Refused::Closed)
    }
}
