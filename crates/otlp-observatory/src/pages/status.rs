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
    forward,
    store::{Counts, UnixNano},
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
struct Memory {
    limit_bytes: usize,
    traces_bytes: usize,
    logs_bytes: usize,
    metrics_bytes: usize,
}

#[derive(Serialize)]
struct Kept {
    traces: usize,
    spans: u64,
    logs: u64,
    series: usize,
    points: u64,
    oldest_unix_nano: Option<UnixNano>,
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
    let site = (explorer.status)();
    json(
        generation,
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started_unix_nano: UnixNano(explorer.store.started()),
            endpoints: Endpoints {
                http: format!("http://{}", explorer.http),
                grpc: explorer.grpc.map(|grpc| format!("http://{grpc}")),
            },
            memory: Memory {
                limit_bytes: usage.limit_bytes,
                traces_bytes: usage.traces_bytes,
                logs_bytes: usage.logs_bytes,
                metrics_bytes: usage.metrics_bytes,
            },
            kept: Kept {
                traces: usage.traces,
                spans: usage.kept.spans,
                logs: usage.kept.logs,
                series: usage.series,
                points: usage.kept.points,
                oldest_unix_nano: usage.oldest.map(UnixNano),
            },
            received: site.received,
            evicted: usage.evicted,
            refused: Refused {
                requests: site.refused_requests,
                entries: usage.refused,
            },
            services: usage.services,
            forwarding: site.forwarding,
        },
    )
}
