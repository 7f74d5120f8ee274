//! Inputs of the pages.

use std::{net::SocketAddr, sync::Arc};

use crate::{forward::Forwarder, ingest::Received, store::Store};

/// Data and addresses that the pages show.
pub(crate) struct Explorer {
    pub(crate) store: Arc<Store>,
    /// Address of the pages. If it is a loopback address, requests for other host names are rejected.
    pub(crate) pages: SocketAddr,
    /// Address of the OTLP/HTTP receiver.
    pub(crate) http: SocketAddr,
    /// Address of the OTLP/gRPC receiver, if it is enabled.
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) received: Arc<Received>,
    /// `None` if forwarding is disabled.
    pub(crate) forwarder: Option<Forwarder>,
}
