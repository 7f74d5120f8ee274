//! The exchange between workers when one starts, which Celery calls mingle: the revoked ids, so that a
//! revocation also holds for workers that start later, and the logical clocks.

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
    // This worker receives its own greeting too.
    if own.len() > 1 {
        warn!(
            hostname = shared.hostname,
            "another worker has the same name, so remote control and events cannot tell them apart; \
                    give each worker its own name"
        );
    }
    for reply in &others {
        shared
            .clock
            .adjust(reply.content.get("clock").and_then(Value::as_u64).unwrap_or(0));
        shared.revoked.add(revoked(reply.content.get("revoked")));
    }
    if !others.is_empty() {
        info!(
            workers = others.len(),
            "exchanged revoked tasks with the other workers"
        );
    }
}

/// Reads the revoked ids of another worker: a list, or an object with one member for each id, as sent up to
/// Celery 5.6.
pub(super) fn revoked(sent: Option<&Value>) -> Vec<String> {
    match sent {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::Object(ids)) => ids.keys().cloned().collect(),
        _ => Vec::new(),
    }
}
