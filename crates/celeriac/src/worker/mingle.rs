//! Exchange with the other workers when this worker starts, which Celery calls mingle. The workers exchange
//! logical clocks and revoked ids; a revocation then also applies to workers that start later. The broker stores
//! revoked ids too, in case no worker is running.

use std::time::Duration;

use serde_json::{Value, json};

use super::shared::Shared;
use crate::{
    control::{Control, object},
    log::{debug, info, warn},
};

/// Maximum time to wait for the other workers' replies.
const TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn mingle(shared: &Shared) {
    match shared.broker.stored_revoked().await {
        Ok(ids) => shared.revoked.add(ids),
        Err(error) => debug!(%error, "failed to read the revoked tasks"),
    }
    let arguments = object([
        ("from_node", json!(shared.hostname)),
        ("revoked", json!(shared.revoked.ids())),
    ]);
    let control = Control::new(shared.broker.clone()).timeout(TIMEOUT);
    let replies = match control.inspect("hello", arguments).await {
        Ok(replies) => replies,
        Err(error) => {
            debug!(%error, "failed to greet the other workers");
            return;
        }
    };
    let (own, others): (Vec<_>, Vec<_>) = replies
        .into_iter()
        .partition(|reply| reply.node == shared.hostname);
    // This worker also replies to its own greeting.
    if own.len() > 1 {
        warn!(
            celery.hostname = shared.hostname,
            "another worker has the same name, so remote control and events cannot tell them apart; \
             give each worker its own name"
        );
    }
    for reply in &others {
        shared.clock.adjust(reply.content["clock"].as_u64());
        shared.revoked.add(revoked(reply.content.get("revoked")));
    }
    if !others.is_empty() {
        info!(
            celery.workers = others.len(),
            "exchanged revoked tasks with the other workers"
        );
    }
}

/// Returns the revoked ids in another worker's message: a list or, up to Celery 5.6, an object with a member
/// for each id.
pub(super) fn revoked(sent: Option<&Value>) -> Vec<String> {
    match sent {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::Object(ids)) => ids.keys().cloned().collect(),
        _ => Vec::new(),
    }
}
