//! Declares the bindings of the worker's queues to named exchanges, from which Celery clients learn where to send
//! messages. Bindings are declared again and again, in case the server has lost them.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::shared::Shared;
use crate::{broker::BrokerError, failure_log::FailureLog};

/// Time after which the bindings are declared again.
const INTERVAL: Duration = Duration::from_secs(10);

/// Declares the bindings while the worker runs.
pub(super) async fn declare(shared: Arc<Shared>) {
    if shared.bindings.is_empty() {
        return;
    }
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = FailureLog::new("declaring bindings");
    loop {
        ticks.tick().await;
        match declare_all(&shared).await {
            Ok(()) => failures.worked(),
            Err(error) => failures.failed(&error),
        }
    }
}

async fn declare_all(shared: &Shared) -> Result<(), BrokerError> {
    for (queue, exchange, routing_key) in &shared.bindings {
        shared.broker.bind_queue(queue, exchange, routing_key).await?;
    }
    Ok(())
}
