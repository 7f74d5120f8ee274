//! Says that the worker's deliveries are still worked on, gives back those of workers that are gone, and reserves its
//! own again when the broker has lost them.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use crate::{
    broker::{BrokerError, Delivery, Renewal},
    log::{info, warn},
    streak::Streak,
};

pub(super) async fn leases(shared: Arc<Shared>) {
    let mut ticks = interval(shared.broker.renew_interval().max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut streak = Streak::new("renewing leases");
    let mut again = Vec::new();
    loop {
        ticks.tick().await;
        match pass(&shared, &mut again).await {
            Ok(restored) => {
                streak.worked();
                if restored > 0 {
                    info!(restored, "gave back messages that dead workers held");
                }
            }
            Err(error) => streak.failed(&error),
        }
    }
}

/// `again` is what was reserved again after the broker had lost it. A delivery that ended at that moment may have been
/// reserved after its end, and would stay so: therefore each is ended once more when it has ended.
async fn pass(shared: &Shared, again: &mut Vec<Delivery>) -> Result<usize, BrokerError> {
    let broker = &shared.broker;
    let renewal = broker.renew(&shared.inflight.tags()).await?;
    let held = |delivery: &Delivery| shared.inflight.holds(&delivery.tag);
    while let Some(ended) = again.iter().position(|delivery| !held(delivery)) {
        broker.ack(&again[ended], None).await?;
        again.swap_remove(ended);
    }
    if renewal == Renewal::Lost {
        let deliveries = shared.inflight.deliveries();
        broker.reserve(&deliveries).await?;
        let messages = deliveries.len();
        warn!(
            messages,
            "the broker had lost its data; what this worker holds is reserved again"
        );
        *again = deliveries;
    }
    broker.restore_expired().await
}
