//! Publishes the tasks of the outbox, and deletes each once the broker is responsible for it.
//!
//! After a crash between the two steps, the task is published again; no task is lost. The task keeps its id,
//! so its notifications are delivered once even if it runs twice.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Client, RetryDelay, Signature};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use telemetry::{Context, KeyValue, Span, opentelemetry::trace::FutureExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::OutboxTask,
    names::span,
    store::{OutboxStore, StoreError},
};

/// Maximum number of tasks being published; in embedded mode, of tasks waiting and running.
const MAX_PUBLISHING: i64 = 256;

/// Interval between polls of the outbox without a notification, which find expired claims and the tasks of
/// processes that died.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time to publish a task to a durable broker.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Back-off while the store or the broker is unavailable. Retries are unlimited: a task stays in the outbox
/// until the broker is available.
const BACK_OFF: RetryDelay = RetryDelay::Exponential {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
    jitter: true,
};

/// The durability of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The broker outlives this process, and is responsible for a task once it has accepted it.
    Broker,
    /// The broker ends with this process, so a task stays in the outbox until it has finished. No other
    /// process uses the outbox.
    OutboxUntilDone,
}

/// Background job that moves tasks from the outbox to the broker.
#[derive(Debug)]
pub struct Dispatcher {
    pub store: Arc<dyn OutboxStore>,
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub queue: String,
    pub durability: Durability,
    /// Notified when a row is added to the outbox.
    pub wake: Arc<Notify>,
}

impl Dispatcher {
    /// Runs until `shutdown` is cancelled, then claims no more tasks and finishes publishing.
    ///
    /// With [`Durability::OutboxUntilDone`], unfinished tasks stay in the outbox for the next start.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.durability == Durability::OutboxUntilDone {
            match self.store.release_all_outbox().await {
                Ok(0) => {}
                Ok(tasks) => telemetry::info!(tasks, "resuming the tasks of an earlier run"),
                Err(error) => telemetry::error!(%error, "cannot release the claims of an earlier run"),
            }
        }
        let mut publishing = FuturesUnordered::new();
        let mut broker_accepts = true;
        let mut failed_claims = 0;
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(accepted) = publishing.next(), if !publishing.is_empty() => {
                    broker_accepts = accepted;
                    continue;
                }
                () = tokio::time::sleep(wait) => {}
                () = self.wake.notified(), if broker_accepts && failed_claims == 0 => {}
            }
            let room = MAX_PUBLISHING - count(publishing.len());
            let began = Instant::now();
            let claim = self.store.claim_outbox(self.clock.now(), self.lease(), room);
            match telemetry::without_spans(claim).await {
                Ok(tasks) => {
                    failed_claims = 0;
                    // After a full batch, more tasks may be waiting.
                    let more = room > 0 && count(tasks.len()) == room;
                    wait = if more && broker_accepts {
                        Duration::ZERO
                    } else {
                        POLL_INTERVAL
                    };
                    let traces: Vec<Context> = tasks.iter().map(parent).collect();
                    record_claim(began, &traces).await;
                    // Publishing belongs to the trace of the request that caused the task.
                    let tasks = tasks.into_iter().zip(traces);
                    publishing.extend(tasks.map(|(task, trace)| self.publish(task).with_context(trace)));
                }
                Err(error) => {
                    // The store logs its outages.
                    if failed_claims == 0 && !matches!(error, StoreError::Unavailable(_)) {
                        telemetry::warn!(%error, "cannot read the outbox; retrying");
                    }
                    failed_claims += 1;
                    wait = BACK_OFF.after(failed_claims);
                }
            }
        }
        if self.durability == Durability::Broker {
            // Each attempt ends within its time-out; a task whose attempt is aborted may be published twice.
            while publishing.next().await.is_some() {}
        }
    }

    /// Publishes a task and updates the outbox. Returns whether the broker accepted the task.
    async fn publish(&self, task: OutboxTask) -> bool {
        let signature = task.trace.iter().fold(
            Signature::new(&task.name)
                .id(task.task_id)
                .args(task.args)
                .queue(&self.queue),
            |signature, (name, value)| signature.header(name, value.as_str()),
        );
        let sending = self.client.send(signature);
        let sent = match self.durability {
            Durability::Broker => tokio::time::timeout(PUBLISH_TIMEOUT, sending).await,
            Durability::OutboxUntilDone => Ok(sending.await),
        };
        let failure = match sent {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the broker did not respond in time".to_owned()),
        };
        let written = match &failure {
            None => self.store.delete_outbox(task.id).await,
            Some(reason) => {
                let delay = BACK_OFF.after(task.attempts.unsigned_abs());
                telemetry::warn!(
                    task.id = %task.task_id,
                    task.attempts,
                    retry_in_s = delay.as_secs_f64(),
                    reason,
                    "task not published"
                );
                let retry_at = self.clock.now().saturating_add(delay);
                self.store
                    .release_outbox(task.id, retry_at.unwrap_or(Timestamp::MAX))
                    .await
            }
        };
        if let Err(error) = written {
            // The claim expires, and the task is published again under the same id.
            telemetry::warn!(
                task.id = %task.task_id,
                %error,
                "cannot update the outbox; the task will be published again"
            );
        }
        failure.is_none()
    }

    fn lease(&self) -> Duration {
        match self.durability {
            Durability::Broker => 2 * PUBLISH_TIMEOUT,
            // No other process claims tasks, and the next start of this process releases the claims.
            Durability::OutboxUntilDone => Duration::from_hours(24 * 365),
        }
    }
}

/// Records a span for a claim, with links to the requests that caused the claimed tasks. An empty claim has
/// no span.
async fn record_claim(began: Instant, traces: &[Context]) {
    if traces.is_empty() {
        return;
    }
    let claim = Span::internal(span::OUTBOX_CLAIM)
        .since(began)
        .attribute(KeyValue::new(
            "messaging.batch.message_count",
            count(traces.len()),
        ))
        .links(traces);
    let done: Result<(), Infallible> = claim.run(std::future::ready(Ok(()))).await;
    done.unwrap_or_else(|never| match never {});
}

/// Returns the context of the request that caused `task`.
fn parent(task: &OutboxTask) -> Context {
    let headers = task.trace.iter();
    telemetry::extract_context(headers.map(|(name, value)| (name.as_str(), value.as_str())))
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
