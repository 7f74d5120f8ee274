//! Declares the bindings of the worker's queues to named exchanges, from which clients learn where to send messages.
//! They are declared repeatedly, in case the server loses them.
//!
//! The messages of a fan-out exchange are published on a channel and not stored. The worker moves them to its own
//! queue, from which it receives them like any other message, and deletes this queue when it stops.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all};
use tokio::time::{MissedTickBehavior, interval};

use super::shared::{QueueBinding, Shared};
use crate::{back_off::BackOff, broker::BrokerError, failure_log::FailureLog};

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
    for binding in &shared.bindings {
        let QueueBinding {
            queue,
            exchange,
            routing_key,
        } = binding;
        shared.broker.bind_queue(queue, exchange, routing_key).await?;
    }
    Ok(())
}

fn fanouts(shared: &Shared) -> impl Iterator<Item = &QueueBinding> {
    let bindings = shared.bindings.iter();
    bindings.filter(|binding| binding.exchange.is_fanout())
}

/// Receives the messages of fan-out exchanges while the worker runs.
pub(super) async fn receive_broadcasts(shared: Arc<Shared>) {
    join_all(fanouts(&shared).map(|binding| receive(&shared, binding))).await;
}

async fn receive(shared: &Shared, binding: &QueueBinding) {
    let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut failures = FailureLog::new("receiving from a fan-out exchange");
    // kombu treats the topic pattern of a fan-out exchange as a pattern of Redis.
    let pattern = binding.routing_key.replace('#', "*");
    loop {
        match shared.broker.listen(binding.exchange.name(), &pattern).await {
            Ok(mut messages) => {
                while let Some(raw) = messages.next().await {
                    match shared.broker.enqueue_broadcast(&binding.queue, &raw).await {
                        Ok(()) => {
                            failures.worked();
                            back_off.reset();
                        }
                        Err(error) => failures.failed(&error),
                    }
                }
            }
            Err(error) => failures.failed(&error),
        }
        back_off.wait().await;
    }
}

/// Deletes the queues of fan-out exchanges.
pub(super) async fn close(shared: &Shared) -> Result<(), BrokerError> {
    for QueueBinding {
        queue,
        exchange,
        routing_key,
    } in fanouts(shared)
    {
        shared.broker.delete_queue(queue, exchange, routing_key).await?;
    }
    Ok(())
}
