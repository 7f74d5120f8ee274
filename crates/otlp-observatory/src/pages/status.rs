//! `/status`: memory use, counts of received, evicted and rejected telemetry, forwarding, and the addresses of
//! the receivers.

use std::{sync::Arc, time::UNIX_EPOCH};

use serde::Serialize;

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::{
    export::Counts,
    first_steps::FirstStep,
    forward::{self, Forwarder},
    ingest,
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
    repeated: Counts,
    /// Requests that waited for room in the queue.
    delayed_requests: u64,
    refused: Rejected,
    services: Vec<Arc<str>>,
    forwarding: Option<forward::Status>,
    first_steps: Vec<FirstStep>,
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
    reasons: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    reason: String,
    requests: u64,
    last_unix_nano: UnixNano,
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
        repeated: usage.repeated,
        delayed_requests: explorer.received.delayed_requests(),
        refused: Rejected {
            requests: explorer.received.rejected_requests(),
            entries: usage.refused + explorer.received.refused(),
            reasons: explorer
                .received
                .reasons()
                .into_iter()
                .map(Reason::from)
                .collect(),
        },
        services: usage.services,
        forwarding: explorer.forwarder.as_ref().map(Forwarder::status),
        first_steps: explorer.first_steps.get(),
    })
}

impl From<ingest::Reason> for Reason {
    fn from(reason: ingest::Reason) -> Self {
        let last = reason.last.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            reason: reason.text,
            requests: reason.requests,
            last_unix_nano: UnixNano(u64::try_from(last.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
}
