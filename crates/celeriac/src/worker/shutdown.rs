//! A warm shutdown: what has not begun goes back to its queue at once, what runs may finish within the grace period,
//! the rest goes back as well.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{Shared, WorkerError, consume};
use crate::{
    broker::Delivery,
    log::{info, warn},
};

/// How long giving back may take beyond the grace period; after that the lease's end does it.
const GIVE_BACK: Duration = Duration::from_secs(5);

pub(super) async fn shutdown(
    shared: &Arc<Shared>,
    mut tasks: JoinSet<()>,
    grace: Duration,
) -> Result<(), WorkerError> {
    let deadline = Instant::now() + grace;
    shared.slots.close();
    let mut stranded = give_back(shared, shared.inflight.take_waiting()).await;
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            consume::report(ended);
        }
    };
    let in_time = timeout_at(deadline, finish).await.is_ok();
    // What is being dropped here must not settle anything any more when its message goes back.
    tasks.shutdown().await;
    let unfinished = shared.inflight.take_all();
    let cut = unfinished.len();
    // What is still held now was acknowledged before it began.
    let lost = shared.inflight.held().len();
    if lost > 0 {
        warn!(
            lost,
            "tasks that were acknowledged early were cut off and do not run again"
        );
    }
    stranded += give_back(shared, unfinished).await;
    match (stranded, in_time || cut == 0) {
        (0, true) => Ok(()),
        (0, false) => Err(WorkerError::Unfinished(cut)),
        (stranded, _) => Err(WorkerError::NotGivenBack(stranded)),
    }
}

/// Returns how many could not be given back.
async fn give_back(shared: &Shared, deliveries: Vec<Delivery>) -> usize {
    if deliveries.is_empty() {
        return 0;
    }
    let mut left = deliveries.len();
    let restore = async {
        for delivery in &deliveries {
            shared.broker.restore(delivery).await?;
            left -= 1;
        }
        Ok::<(), crate::BrokerError>(())
    };
    match timeout(GIVE_BACK, restore).await {
        Ok(Ok(())) => info!(messages = deliveries.len(), "gave back messages"),
        Ok(Err(error)) => warn!(left, %error, "messages could not be given back"),
        Err(_) => warn!(left, "messages could not be given back in time"),
    }
    left
}
