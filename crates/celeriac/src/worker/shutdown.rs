//! Warm shutdown: messages of waiting tasks return to their queues immediately, running tasks may finish
//! within the grace period, and the messages of the remaining tasks return too. The last worker to stop also returns
//! the postponed messages, which no worker holds.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;
use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{consume, shared::Shared};
use crate::{
    broker::Delivery,
    log::{info, warn},
};

/// Time-out for returning a batch of messages to their queues. The remaining messages are redelivered when the
/// worker's lease expires.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of messages in a batch, and number of bytes after which a batch is complete.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// Error of a worker that did not shut down cleanly.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Tasks were still running at the end of the grace period. They were aborted, and their messages were
    /// returned to their queues.
    #[error("{0} tasks were still running at the end of the grace period; their messages were returned")]
    Unfinished(usize),
    /// The broker did not confirm the return of messages. They are redelivered when the worker's lease or the
    /// visibility time-out expires.
    #[error(
        "{0} messages could not be returned to their queues; they are redelivered when the worker's lease expires"
    )]
    NotReturned(usize),
}

pub(super) async fn shutdown(
    shared: &Arc<Shared>,
    mut tasks: JoinSet<()>,
    grace: Duration,
) -> Result<(), WorkerError> {
    let deadline = Instant::now() + grace;
    shared.slots.close();
    let mut not_returned = return_messages(shared, shared.inflight.take_waiting()).await;
    let finish = async {
        while let Some(result) = tasks.join_next().await {
            consume::report(result);
        }
    };
    let postponed = return_postponed(shared, false, grace);
    let (finished, ()) = join(timeout_at(deadline, finish), postponed).await;
    let in_time = finished.is_ok();
    // The tasks are dropped first: after their messages return to the queues, they must not settle anything.
    tasks.shutdown().await;
    let unfinished = shared.inflight.take_all();
    let interrupted = unfinished.len();
    // The deliveries still held were acknowledged before their tasks started.
    let held = shared.inflight.held();
    let lost = held.iter().filter(|entry| !entry.is_lost()).count();
    if lost > 0 {
        warn!(
            celery.tasks.lost = lost,
            "interrupted tasks that were acknowledged early; they do not run again"
        );
    }
    not_returned += return_messages(shared, unfinished).await;
    match (not_returned, in_time || interrupted == 0) {
        (0, true) => Ok(()),
        (0, false) => Err(WorkerError::Unfinished(interrupted)),
        (not_returned, _) => Err(WorkerError::NotReturned(not_returned)),
    }
}

/// Returns the postponed messages to their queues if no other worker is alive. With `is_leaving`, the worker, which must
/// hold nothing, ends its lease first, so that the last of several workers that stop together returns the messages.
pub(super) async fn return_postponed(shared: &Shared, is_leaving: bool, limit: Duration) {
    let mut messages = 0;
    let returned = timeout(limit, shared.broker.return_postponed(is_leaving, &mut messages)).await;
    match returned {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "failed to return postponed messages to their queues"),
        Err(_) => warn!("timed out returning postponed messages to their queues"),
    }
    if messages > 0 {
        info!(
            messaging.batch.message_count = messages,
            "returned postponed messages to their queues, because no other worker is alive"
        );
    }
}

/// Returns deliveries to their queues. Returns the number of deliveries that could not be returned.
async fn return_messages(shared: &Shared, deliveries: Vec<Delivery>) -> usize {
    if deliveries.is_empty() {
        return 0;
    }
    let mut rest = deliveries.as_slice();
    let mut messages = 0;
    while !rest.is_empty() {
        let (batch, next) = Delivery::split_batch(rest, BATCH, BATCH_BYTES);
        let left = rest.len();
        match timeout(RESTORE_TIMEOUT, shared.broker.restore_batch(batch)).await {
            Ok(Ok(restored)) => messages += restored,
            Ok(Err(error)) => {
                warn!(celery.messages.left = left, %error, "failed to return messages to their queues");
                break;
            }
            Err(_) => {
                warn!(
                    celery.messages.left = left,
                    "timed out returning messages to their queues"
                );
                break;
            }
        }
        rest = next;
    }
    let left = rest.len();
    if messages > 0 {
        info!(
            messaging.batch.message_count = messages,
            "returned messages to their queues"
        );
    }
    let taken = deliveries.len() - left - messages;
    if taken > 0 {
        warn!(
            celery.messages.taken = taken,
            "did not return messages that other workers have taken over"
        );
    }
    left
}
