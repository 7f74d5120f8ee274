//! Inputs of the pages.

use std::sync::Arc;

use crate::{
    config::{Addresses, FirstStep},
    forward::Forwarder,
    ingest::Received,
    store::Store,
};

/// Data and addresses that the pages show.
pub(crate) struct Explorer {
    pub(crate) store: Arc<Store>,
    pub(crate) addresses: Addresses,
    pub(crate) received: Arc<Received>,
    /// `None` if forwarding is disabled.
    pub(crate) forwarder: Option<Forwarder>,
    pub(crate) first_steps: Vec<FirstStep>,
}
