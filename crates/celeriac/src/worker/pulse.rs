//! Shows that the worker is alive, with heartbeats for people and other workers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::{Map, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Shared;
use crate::{
    broker::BrokerError,
    event::{EXCHANGE, Event},
    log::debug,
    system,
};

const HEARTBEAT: Duration = Duration::from_secs(2);
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn heartbeats(shared: Arc<Shared>) {
    let mut ticks = interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kind = "worker-online";
    loop {
        ticks.tick().await;
        match announce(&shared, kind).await {
            Ok(()) => kind = "worker-heartbeat",
            // The connection logs its outages; after one, the worker is announced again.
            Err(error) => {
                debug!(%error, "no heartbeat");
                kind = "worker-online";
            }
        }
    }
}

pub(super) async fn offline(shared: &Shared) {
    match timeout(GOODBYE, announce(shared, "worker-offline")).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "no goodbye"),
        Err(_) => debug!("no goodbye in time"),
    }
}

/// Broadcasts news of this kind with the worker's state now.
pub(super) async fn announce(shared: &Shared, kind: &str) -> Result<(), BrokerError> {
    let news = event(shared, kind);
    shared
        .broker
        .broadcast(EXCHANGE, &news.routing_key(), news.encode())
        .await
        .map(|_| ())
}

fn event(shared: &Shared, kind: &str) -> Event {
    let mut fields = Map::new();
    let mut set = |name: &str, value| fields.insert(name.to_owned(), value);
    set("utcoffset", json!(0));
    set("pid", json!(std::process::id()));
    set("clock", json!(shared.clock.forward()));
    set("freq", json!(HEARTBEAT.as_secs_f64()));
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
