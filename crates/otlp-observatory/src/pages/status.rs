//! `/status`: memory use, counts of received, evicted and rejected telemetry, forwarding, and the addresses of
//! the receivers.

use std::sync::Arc;

use serde::Serialize;

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::{
    export::Counts,
    forward::{self, Forwarder},
    store::{Kept, Memory, UnixNano},
};

#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    started_unix_nano: UnixNano,
    endpoints: Endpoints,
    memory: Memory,
    kept: Kept,
    received: Counts,
    evicted: Counts,
    refused: Rejected,
    services: Vec<Arc<str>>,
    forwarding: Option<forward::Status>,
}

#[derive(Serialize)]
struct Endpoints {
    http: String,
    grpc: Option<String>,
}

#[derive(Serialize)]
struct Rejected {
    requests: u64,
    #[serde(flatten)]
    entries: Counts,
}

pub(super) fn status(explorer: &Explorer, parameters: &mut Parameters) -> Result<Status, PageError> {
    parameters.finish()?;
    let usage = explorer.store.usage();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        started_unix_nano: UnixNano(explorer.store.started()),
        endpoints: Endpoints {
            http: format!("http://{}", explorer.addresses.http),
            grpc: explorer.addresses.grpc.map(|grpc| format!("http://{grpc}")),
        },
        memory: usage.memory,
        kept: usage.kept,
        received: explorer.received.counts(),
        evicted: usage.evicted,
        refused: Rejected {
            requests: explorer.received.rejected_requests(),
            entries: usage.refused,
        },
        services: usage.services,
        forwarding: explorer.forwarder.as_ref().map(Forwarder::status),
    })
}
