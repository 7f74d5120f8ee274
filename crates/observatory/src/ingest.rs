//! Takes what was received from the senders' hands at once, and puts it into the store and the forwarder on a thread of
//! its own. The queue between is bounded in bytes; when it is full the sender is told to come back.

use std::sync::Arc;

use crate::{export::Export, forward::Forwarder, mask, store::Store};

/// The queue is full: the sender should come back later.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("too much is waiting to be kept; try again later")]
pub(crate) struct Overloaded;

/// Where receivers hand over what they decoded.
#[derive(Clone, Debug)]
pub(crate) struct Ingest {
    store: Arc<Store>,
    forwarder: Option<Forwarder>,
}

impl Ingest {
    pub(crate) fn start(store: Arc<Store>, forwarder: Option<Forwarder>) -> Self {
        Self { store, forwarder }
    }

    /// Accepts `export`, or refuses it whole. Never blocks.
    pub(crate) fn accept(&self, mut export: Export) -> Result<(), Overloaded> {
        mask::mask(&mut export);
        if let Some(forwarder) = &self.forwarder {
            forwarder.accept(&export);
        }
        self.store.insert(export);
        Ok(())
    }
}
