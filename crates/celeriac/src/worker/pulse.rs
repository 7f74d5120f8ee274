//! Shows that the worker is alive, with heartbeats for people and other workers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::{Map, json};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::Shared;
use crate::{
    event::{WorkerEvent, WorkerEventKind},
    system,
};

const HEARTBEAT: Duration = Duration::from_secs(2);
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn heartbeats(shared: Arc<Shared>) {
    let mut ticks = interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kind = WorkerEventKind::Online;
    let mut clock = 0;
    loop {
        ticks.tick().await;
        clock += 1;
        match shared.broker.publish_event(&event(&shared, kind, clock)).await {
            Ok(()) => kind = WorkerEventKind::Heartbeat,
            // The connection logs its outages; after one, the worker is announced again.
            Err(error) => {
                debug!(%error, "no heartbeat");
                kind = WorkerEventKind::Online;
            }
        }
    }
}

pub(super) async fn offline(shared: &Shared) {
    let news = event(shared, WorkerEventKind::Offline, 0);
    match timeout(GOODBYE, shared.broker.publish_event(&news)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "no goodbye"),
        Err(_) => debug!("no goodbye in time"),
    }
}

fn event(shared: &Shared, kind: WorkerEventKind, clock: u64) -> WorkerEvent {
    let mut fields = Map::new();
    let mut set = |name: &str, value| fields.insert(name.to_owned(), value);
    set("utcoffset", json!(0));
    set("pid", json!(std::process::id()));
    set("clock", json!(clock));
    set("freq", json!(HEARTBEAT.as_secs_f64()));
    set("active", json!(shared.active.load(Ordering::Relaxed)));
    set("processed", json!(shared.processed.load(Ordering::Relaxed)));
    set("loadavg", json!(system::load_average()));
    set("sw_ident", json!("celeriac"));
    set("sw_ver", json!(env!("CARGO_PKG_VERSION")));
    set("sw_sys", json!("Linux"));
    set("timestamp", json!(system::now().as_microsecond() as f64 / 1e6));
    WorkerEvent {
        kind,
        hostname: shared.hostname.clone(),
        fields,
    }
}
