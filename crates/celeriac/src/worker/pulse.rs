//! Worker events: online, offline, and the heartbeats that show monitors and other workers that this worker is
//! alive.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::shared::Shared;
use crate::{
    broker::BrokerError,
    event::{EXCHANGE, Event},
    log::debug,
    system,
};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

pub(super) async fn heartbeats(shared: Arc<Shared>) {
    let mut ticks = interval(HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kind = "worker-online";
    loop {
        ticks.tick().await;
        match announce(&shared, kind).await {
            Ok(()) => kind = "worker-heartbeat",
            // The connection logs outages. After an outage, the worker announces itself again.
            Err(error) => {
                debug!(%error, "failed to send a heartbeat");
                kind = "worker-online";
            }
        }
    }
}

/// Broadcasts an event with the worker's current figures.
pub(super) async fn announce(shared: &Shared, kind: &str) -> Result<(), BrokerError> {
    let details = [
        ("freq", json!(HEARTBEAT_INTERVAL.as_secs_f64())),
        ("active", json!(shared.active.load(Ordering::Relaxed))),
        ("processed", json!(shared.processed.load(Ordering::Relaxed))),
        ("loadavg", json!(system::load_average())),
        ("sw_ident", json!("celeriac")),
        ("sw_ver", json!(env!("CARGO_PKG_VERSION"))),
        ("sw_sys", json!("Linux")),
    ];
    let event = Event::new(kind, &shared.hostname, shared.clock.tick(), details);
    shared
        .broker
        .broadcast(EXCHANGE, &event.routing_key(), event.encode())
        .await
        .map(|_| ())
}
