//! What the receivers of all ports share.

use super::{body_memory::BodyMemory, decoding::Decoder};
use crate::ingest::Ingest;

/// The receivers of all ports, which share the memory for request bodies.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(super) ingest: Ingest,
    pub(super) memory: BodyMemory,
    pub(super) decoder: Decoder,
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
}
