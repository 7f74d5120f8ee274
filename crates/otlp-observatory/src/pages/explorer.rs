//! The types that all pages share.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::Semaphore;

use super::{parameters::Parameters, refusal::Refusal};
use crate::{forward::Forwarder, ingest::Received, store::Store};

/// Data and addresses that the pages show.
pub(crate) struct Explorer {
    pub(crate) store: Arc<Store>,
    /// Address of the pages. If it is a loopback address, other host names are refused.
    pub(crate) pages: SocketAddr,
    /// Address of the OTLP/HTTP receiver.
    pub(crate) http: SocketAddr,
    /// Address of the OTLP/gRPC receiver, if it is enabled.
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) received: Arc<Received>,
    /// `None` if forwarding is disabled.
    pub(crate) forwarder: Option<Forwarder>,
}

/// Endpoint of the pages: its query parameters and the function that computes its JSON.
pub(super) struct Page {
    /// Names of the query parameters.
    pub(super) parameters: &'static [&'static str],
    /// Whether the answer changes with time even if no telemetry arrives.
    pub(super) is_time_dependent: bool,
    pub(super) compute: fn(&Explorer, &Parameters) -> Result<Vec<u8>, Refusal>,
}

pub(super) struct Shared {
    pub(super) explorer: Explorer,
    pub(super) permits: Semaphore,
}
