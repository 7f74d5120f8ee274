//! `/status`: memory use, counts of received, evicted and refused telemetry, forwarding, and the addresses of
//! the receivers.

use std::sync::Arc;

use serde::Serialize;

use super::{
    answer::json,
    page::{Explorer, Page},
    parameters::Parameters,
    refusal::Refusal,
};
use crate::{
    export::Counts,
    forward::{self, Forwarder},
    store::{Kept, Memory, UnixNano},
};

pub(super) const STATUS: Page = Page {
    parameters: &[],
    is_time_dependent: true,
    compute: status,
};

#[derive(Serialize)]
struct Status {
    version: &'static str,
    started_unix_nano: UnixNano,
    endpoints: Endpoints,
    memory: Memory,
    kept: Kept,
    received: Counts,
    evicted: Counts,
    refused: Refused,
    services: Vec<Arc<str>>,
    forwarding: Option<forward::Status>,
}

#[derive(Serialize)]
struct Endpoints {
    http: String,
    grpc: Option<String>,
}

#[derive(Serialize)]
struct Refused {
    requests: u64,
    #[serde(flatten)]
    entries: Counts,
}

fn status(explorer: &Explorer, _: &Parameters) -> Result<Vec<u8>, Refusal> {
    let generation = explorer.store.generation();
    let usage = explorer.store.usage();
    json(
        generation,
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started_unix_nano: UnixNano(explorer.store.started()),
            endpoints: Endpoints {
                http: format!("http://{}", explorer.http),
                grpc: explorer.grpc.map(|grpc| format!("http://{grpc}")),
            },
            memory: usage.memory,
            kept: usage.kept,
            received: explorer.received.counts(),
            evicted: usage.evicted,
            refused: Refused {
                requests: explorer.received.rejected_requests(),
                entries: usage.refused,
            },
            services: usage.services,
            forwarding: explorer.forwarder.as_ref().map(Forwarder::status),
        },
    )
}
