//! What the receivers of all ports share.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    body::Compression,
    body_memory::BodyMemory,
    decoding::{Decoded, Decoder},
    encoding::Encoding,
    refused::Refused,
    rejection::Rejection,
};
use crate::{export::Signal, ingest::Ingest};

/// The receivers of all ports, which share the memory for request bodies.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(super) ingest: Ingest,
    pub(super) memory: BodyMemory,
    decoder: Decoder,
}

/// Telemetry of a request that was queued.
#[derive(Debug)]
pub(super) struct Submitted {
    /// Number of queued items.
    pub(super) items: usize,
    /// Items that were removed.
    pub(super) refused: Refused,
}

impl Receiver {
    pub(crate) fn new(ingest: Ingest) -> Self {
        let decoder = Decoder::new(ingest.max_item());
        Self {
            ingest,
            memory: BodyMemory::new(),
            decoder,
        }
    }

    /// Decodes `body` and queues it within `wait`.
    pub(super) async fn submit(
        &self,
        signal: Signal,
        encoding: Encoding,
        compression: Compression,
        body: Bytes,
        wait: Duration,
    ) -> Result<Submitted, Rejection> {
        let deadline = Instant::now() + wait;
        let decoded = self.decoder.decode(signal, encoding, compression, body, deadline);
        let Decoded {
            export,
            length,
            refused,
            permit: _permit,
        } = decoded.await?;
        self.ingest.count_refused(signal, refused.items);
        let items = export.items();
        self.ingest.accept(export, length, deadline).await?;
        Ok(Submitted { items, refused })
    }
}
