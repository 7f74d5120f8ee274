//! Worker events: online, offline, and the heartbeats by which monitors and other workers see that the worker
//! is alive.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::{Map, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::Shared;
use crate::{
    broker::BrokerError,
    event::{EXCHANGE, Event},
    log::debug,
    system,
};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
const OFFLINE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn heartbeats(shared: Arc<Shared>) {
    let mut ticks = interval(HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kind = "worker-online";
    loop {
        ticks.tick().await;
        match announce(&shared, kind).await {
            Ok(()) => kind = "worker-heartbeat",
            // The connection logs outages; after one, the worker announces itself again.
            Err(error) => {
                debug!(%error, "failed to send a heartbeat");
                kind = "worker-online";
            }
        }
    }
}

pub(super) async fn offline(shared: &Shared) {
    match timeout(OFFLINE_TIMEOUT, announce(shared, "worker-offline")).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "failed to announce that the worker is offline"),
        Err(_) => debug!("timed out announcing that the worker is offline"),
    }
}

/// Broadcasts an event of this kind with the worker's current figures.
pub(super) async fn announce(shared: &Shared, kind: &str) -> Result<(), BrokerError> {
    let event = event(shared, kind);
    shared
        .broker
        .broadcast(EXCHANGE, &event.routing_key(), event.encode())
        .await
        .map(|_| ())
}

fn event(shared: &Shared, kind: &str) -> Event {
    let mut fields = Map::new();
    let mut set = |name: &str, value| fields.insert(name.to_owned(), value);
    set("utcoffset", json!(0));
    set("pid", json!(std::process::id()));
    set("clock", json!(shared.clock.tick()));
    set("freq", json!(HEARTBEAT_INTERVAL.as_secs_f64()));
    set("active", json!(shared.active.load(Ordering::Relaxed)));
    set("processed", json!(shared.processed.load(Ordering::Relaxed)));
    set("loadavg", json!(system::load_average()));
    set("sw_ident", json!("celeriac"));
    set("sw_ver", json!(env!("CARGO_PKG_VERSION")));
    set("sw_sys", json!("Linux"));
    set("timestamp", json!(system::unix_time()));
    Event {
        kind: kind.to_owned(),
        hostname: shared.hostname.clone(),
        fields,
    }
}
