//! Renews the leases of the worker's deliveries, restores the deliveries of dead workers, and reserves the
//! worker's own deliveries again after the broker has lost them.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::shared::Shared;
use crate::{
    broker::{BrokerError, Delivery, Renewal},
    failure_log::FailureLog,
    log::{info, warn},
};

pub(super) async fn leases(shared: Arc<Shared>) {
    let mut ticks = interval(shared.broker.renew_interval().max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = FailureLog::new("renewing leases");
    let mut reserved_again = Vec::new();
    loop {
        ticks.tick().await;
        match renew(&shared, &mut reserved_again).await {
            Ok(restored) => {
                failures.worked();
                if restored > 0 {
                    info!(restored, "returned messages of dead workers to their queues");
                }
            }
            Err(error) => failures.failed(&error),
        }
    }
}

/// Renews the leases and returns the number of restored messages.
///
/// `reserved_again` holds deliveries that were reserved again after the broker had lost them. A delivery that
/// was settled in the meantime may have been reserved after its settlement and would stay reserved, so it is
/// acknowledged once more.
async fn renew(shared: &Shared, reserved_again: &mut Vec<Delivery>) -> Result<usize, BrokerError> {
    let broker = &shared.broker;
    let renewal = broker
        .renew(&shared.inflight.reserved(|delivery| delivery.tag.clone()))
        .await?;
    let held = |delivery: &Delivery| shared.inflight.holds(&delivery.tag);
    while let Some(settled) = reserved_again.iter().position(|delivery| !held(delivery)) {
        broker.ack(&reserved_again[settled], None).await?;
        reserved_again.swap_remove(settled);
    }
    if renewal == Renewal::Lost {
        let deliveries = shared.inflight.reserved(Delivery::clone);
        broker.reserve(&deliveries).await?;
        let messages = deliveries.len();
        warn!(
            messages,
            "the broker had lost its data; reserved this worker's messages again"
        );
        *reserved_again = deliveries;
    }
    broker.restore_expired().await
}
