//! Behaviour of every broker with a worker. `Harness` creates a broker of one kind; the macro runs each
//! behaviour as a separate test.

mod delivery;
mod exchanges;
mod results;

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, Client, Signature};

pub use self::{delivery::*, exchanges::*, results::*};
use crate::support::eventually;

/// Creates brokers of one kind.
pub trait Harness {
    fn broker(&self) -> Arc<dyn Broker>;
    /// Returns a second handle to the same messages, as in another process.
    fn other_broker(&self) -> Arc<dyn Broker>;
    /// Adds a list element, which need not be a valid message.
    fn push_raw(&self, raw: &[u8]);
    /// Time without renewal after which a delivery returns to its queue.
    const LEASE: Duration;
}

/// Sends without waiting, because the in-process broker confirms only when the task has finished.
fn send(client: &Client, signature: Signature) -> String {
    let id = uuid::Uuid::from_u128(rand());
    let (client, signature) = (client.clone(), signature.id(id));
    tokio::spawn(async move { client.send(signature).await.expect("the broker accepts the task") });
    id.to_string()
}

fn rand() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let (high, low) = (RandomState::new().hash_one(1), RandomState::new().hash_one(2));
    u128::from(high) << 64 | u128::from(low)
}

/// Sends signatures one by one, each when the previous message is in its queue.
async fn send_in_order(broker: &dyn Broker, client: &Client, signatures: Vec<Signature>) {
    for signature in signatures {
        let before = broker.depth("celery").await.unwrap().waiting;
        send(client, signature);
        eventually("the message is in its queue", async || {
            (broker.depth("celery").await.unwrap().waiting > before).then_some(())
        })
        .await;
    }
}

async fn empty(broker: &dyn Broker) {
    eventually("nothing is waiting or reserved", async || {
        let depth = broker.depth("celery").await.unwrap();
        (depth.waiting == 0 && depth.unacked == 0).then_some(())
    })
    .await;
}

/// Defines one test for each behaviour, on brokers created by `$harness`.
#[macro_export]
macro_rules! broker_suite {
    ($harness:expr) => {
        $crate::broker_suite!(@each suite $harness;
            a_task_runs_and_its_result_is_found
            tasks_of_a_logged_batch_run_and_their_states_are_found
            a_running_task_has_the_status_started
            a_task_is_retried_until_it_succeeds
            exhausted_retries_fail_with_the_cause
            failures_panics_and_wrong_arguments_fail_only_their_task
            arguments_are_passed_by_position_or_by_name
            a_signature_limits_its_retries
            a_task_acknowledged_early_runs_at_most_once
            an_expired_task_is_revoked
            a_countdown_delays_only_its_own_task
            lower_priority_numbers_run_first_and_equal_priorities_in_order
            prefetched_tasks_start_in_order
            a_warm_shutdown_finishes_running_tasks_and_returns_the_rest
            a_task_that_exceeds_the_grace_period_is_returned
            a_dead_workers_task_is_restored
            a_live_workers_task_is_not_restored
            poison_is_buried_and_the_next_message_runs
            failed_tasks_are_kept_and_run_again_when_they_are_requeued
            a_purge_deletes_what_waits_and_nothing_else
            an_ignored_result_is_not_stored
            a_wait_ends_when_the_task_finishes
            an_intermediate_state_never_replaces_a_final_state
            running_workers_reply_to_a_ping
            a_client_sends_to_its_default_queue_unless_a_signature_names_one
            an_exchange_sends_to_the_queues_that_are_bound_to_it
        );
    };
    (@each $suite:ident $harness:expr; $($behaviour:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                $crate::$suite::$behaviour($harness).await;
            }
        )*
    };
}
