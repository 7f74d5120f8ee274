//! What workers tell each other when one starts: which tasks are revoked, so that a revocation holds for a worker
//! that was not there when it was said, and their clocks. Celery calls it mingle.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Shared;
use crate::{
    control::Control,
    log::{debug, info, warn},
};

/// How long the others have to answer; fewer when all have.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn mingle(shared: &Shared) {
    let mut arguments = Map::new();
    arguments.insert("from_node".to_owned(), json!(shared.hostname));
    arguments.insert("revoked".to_owned(), json!(shared.revoked.ids()));
    let control = Control::new(shared.broker.clone()).timeout(PATIENCE);
    let replies = match control.inspect("hello", arguments).await {
        Ok(replies) => replies,
        Err(error) => {
            debug!(%error, "no greeting");
            return;
        }
    };
    let (own, others): (Vec<_>, Vec<_>) = replies
        .into_iter()
        .partition(|reply| reply.node == shared.hostname);
    // This worker hears its own greeting too.
    if own.len() > 1 {
        warn!(
            hostname = shared.hostname,
            "another worker has the same name; remote control and events cannot tell them apart"
        );
    }
    for reply in &others {
        shared
            .clock
            .adjust(reply.content.get("clock").and_then(Value::as_u64).unwrap_or(0));
        shared.revoked.add(revoked(reply.content.get("revoked")));
    }
    if !others.is_empty() {
        info!(workers = others.len(), "met the other workers");
    }
}

/// The ids that another worker knows to be revoked: a list, or until Celery 5.6 an object with an entry for each.
pub(super) fn revoked(told: Option<&Value>) -> Vec<String> {
    match told {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::Object(ids)) => ids.keys().cloned().collect(),
        _ => Vec::new(),
    }
}
