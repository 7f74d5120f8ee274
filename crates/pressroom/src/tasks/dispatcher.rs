//! Publishes the tasks of the outbox in batches. Once the broker has accepted a batch, its tasks are recorded as
//! published; [`super::reconciler`] follows them from there.
//!
//! After a crash between the two steps, the tasks are published again; no task is lost. A task keeps its id,
//! so its notifications are delivered once even if it runs twice.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Client, LoggedSendError, PublicationLog, RetryDelay, Signature};
use jiff::Timestamp;
use telemetry::{Context, KeyValue, Span, opentelemetry::trace::FutureExt as _};
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::Clock,
    domain::{OutboxTask, PublishedBatch},
    ids::IdSource,
    names::span,
    store::{OutboxStore, PublishedTaskStore, StoreError, lease_end},
};

/// Maximum number of tasks in a claim, which are published as one batch.
const BATCH: usize = 256;

/// Maximum number of batches that are published and recorded concurrently.
const MAX_BATCHES: usize = 4;

/// Maximum number of tasks that wait or run in embedded mode.
const MAX_EMBEDDED: usize = 256;

/// Minimum interval between claims while no full batch waits. Tasks created within it share a batch.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Interval between polls of the outbox without a notification, which find expired claims and the tasks of
/// processes that died.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time to publish a batch to a durable broker, including the wait for earlier batches.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Back-off while the store or the broker is unavailable. Retries are unlimited: a task stays in the outbox
/// until the broker is available.
const BACK_OFF: RetryDelay = RetryDelay::Exponential {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
    jitter: true,
};

/// The durability of the broker.
#[derive(Debug, Clone)]
pub enum Durability {
    /// The broker outlives this process. Its tasks are recorded until they have finished, because it may lose
    /// its data.
    Broker(Arc<dyn PublishedTaskStore>),
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
    pub ids: Arc<dyn IdSource>,
    pub queue: String,
    pub durability: Durability,
    /// Notified when a row is added to the outbox.
    pub wake: Arc<Notify>,
}

/// The current publication log, replaced when the broker has lost data.
struct Log {
    id: Uuid,
    log: PublicationLog,
}

impl Log {
    fn new(id: Uuid) -> Self {
        Self {
            id,
            log: PublicationLog::new(id.to_string()),
        }
    }

    /// Returns the batch that was published last.
    fn last(&self) -> PublishedBatch {
        PublishedBatch {
            log: self.id,
            number: i64::try_from(self.log.length()).unwrap_or(i64::MAX),
        }
    }
}

impl Dispatcher {
    /// Runs until `shutdown` is cancelled, then claims no more tasks and finishes publishing.
    ///
    /// With [`Durability::OutboxUntilDone`], unfinished tasks stay in the outbox for the next start.
    pub async fn run(self, shutdown: CancellationToken) {
        let durable = matches!(self.durability, Durability::Broker(_));
        if !durable && shutdown.run_until_cancelled(self.resume()).await.is_none() {
            return;
        }
        let dispatcher = Arc::new(self);
        // Locked while a batch is sent: each batch must know the confirmed number of the batch before it.
        let log = Arc::new(Mutex::new(Log::new(dispatcher.ids.next())));
        // Tasks of their own, because a claim may wait for the connections that publishing occupies.
        let mut publishing = JoinSet::new();
        let (mut broker_accepts, mut more_waiting) = (true, false);
        let mut failed_claims = 0;
        let mut claimed_at = Instant::now();
        let mut next_claim = claimed_at;
        loop {
            let room = dispatcher.room(publishing.len());
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(published) = publishing.join_next() => {
                    // After a panic, the claims expire.
                    broker_accepts = published.unwrap_or(true);
                    if broker_accepts && more_waiting {
                        next_claim = next_claim.min(dispatcher.earliest_claim(claimed_at));
                    }
                    continue;
                }
                () = dispatcher.wake.notified(), if room > 0 && broker_accepts && failed_claims == 0 => {
                    next_claim = next_claim.min(claimed_at + MIN_INTERVAL);
                    continue;
                }
                () = tokio::time::sleep_until(next_claim.into()), if room > 0 => {}
            }
            claimed_at = Instant::now();
            let (now, lease) = (dispatcher.clock.now(), dispatcher.lease());
            let claim = dispatcher.store.claim_outbox(now, lease, count(room));
            match telemetry::without_spans(claim).await {
                Ok(tasks) => {
                    failed_claims = 0;
                    more_waiting = tasks.len() == room;
                    next_claim = if more_waiting && broker_accepts {
                        dispatcher.earliest_claim(claimed_at)
                    } else {
                        claimed_at + POLL_INTERVAL
                    };
                    let traces: Vec<Context> = tasks.iter().map(parent).collect();
                    record_claim(claimed_at, &traces).await;
                    // In embedded mode, each task has its own batch, because batches end when their tasks do.
                    let size = if durable { BATCH } else { 1 };
                    let mut tasks = tasks.into_iter();
                    // Publishing belongs to the trace of the request that caused the first task.
                    for trace in traces.into_iter().step_by(size) {
                        let batch = tasks.by_ref().take(size).collect();
                        let until = lease_end(now, lease);
                        let publish = dispatcher.clone().publish(log.clone(), batch, until);
                        publishing.spawn(publish.with_context(trace));
                    }
                }
                Err(error) => {
                    // The store logs its outages.
                    if failed_claims == 0 && !matches!(error, StoreError::Unavailable(_)) {
                        telemetry::warn!(%error, "cannot read the outbox; retrying");
                    }
                    failed_claims += 1;
                    next_claim = Instant::now() + BACK_OFF.after(failed_claims);
                }
            }
        }
        if durable {
            // Each attempt ends within its time-out; a task whose attempt is aborted may be published twice.
            while publishing.join_next().await.is_some() {}
        }
    }

    /// Releases the claims of an earlier run, which would otherwise never expire. Retries until it succeeds.
    async fn resume(&self) {
        let mut failures = 0;
        loop {
            match self.store.release_all_outbox().await {
                Ok(0) => return,
                Ok(tasks) => {
                    telemetry::info!(outbox.tasks = tasks, "resuming the tasks of an earlier run");
                    return;
                }
                Err(error) => {
                    if failures == 0 && !matches!(error, StoreError::Unavailable(_)) {
                        telemetry::error!(%error, "cannot release the claims of an earlier run; retrying");
                    }
                    failures += 1;
                    tokio::time::sleep(BACK_OFF.after(failures)).await;
                }
            }
        }
    }

    /// Returns the maximum number of tasks to claim while `batches` batches are being published.
    fn room(&self, batches: usize) -> usize {
        match self.durability {
            Durability::Broker(_) if batches < MAX_BATCHES => BATCH,
            Durability::Broker(_) => 0,
            Durability::OutboxUntilDone => MAX_EMBEDDED.saturating_sub(batches),
        }
    }

    /// Returns the earliest time of the next claim, after a claim that left tasks waiting.
    fn earliest_claim(&self, claimed_at: Instant) -> Instant {
        match self.durability {
            Durability::Broker(_) => claimed_at,
            // Often a single task fits, and without a pause each task would have its own claim.
            Durability::OutboxUntilDone => claimed_at + MIN_INTERVAL,
        }
    }

    /// Publishes tasks, which are claimed until `until`, and updates the outbox. Returns whether the broker accepted them.
    async fn publish(
        self: Arc<Self>,
        log: Arc<Mutex<Log>>,
        tasks: Vec<OutboxTask>,
        until: Timestamp,
    ) -> bool {
        let first = tasks.first().map(|task| task.task_id).unwrap_or_default();
        let ids: Vec<i64> = tasks.iter().map(|task| task.id).collect();
        let attempts = tasks.iter().map(|task| task.attempts).max().unwrap_or_default();
        let signatures = tasks.into_iter().map(|task| self.signature(task)).collect();
        let written = match self.send(&log, signatures).await {
            Ok(batch) => match (&self.durability, batch) {
                (Durability::Broker(published), Some(batch)) => {
                    let now = self.clock.now();
                    published.record_published(&ids, batch, now).await.map(|()| true)
                }
                _ => self.store.delete_outbox(&ids).await.map(|()| true),
            },
            Err(reason) => {
                let delay = BACK_OFF.after(attempts.unsigned_abs());
                telemetry::warn!(
                    outbox.tasks = ids.len(),
                    messaging.message.id = %first,
                    retry.attempts = attempts,
                    retry.delay = delay.as_secs_f64(),
                    reason,
                    "tasks not published"
                );
                let retry_at = self.clock.now().saturating_add(delay);
                let retry_at = retry_at.unwrap_or(Timestamp::MAX);
                let released = self.store.release_outbox(&ids, until, retry_at).await;
                released.map(|()| false)
            }
        };
        written.unwrap_or_else(|error| {
            // The claims expire, and the tasks are published again under the same ids. The store logs its outages.
            if !matches!(error, StoreError::Unavailable(_)) {
                telemetry::warn!(
                    outbox.tasks = ids.len(),
                    messaging.message.id = %first,
                    %error,
                    "cannot update the outbox; the tasks will be published again"
                );
            }
            true
        })
    }

    /// Sends tasks. Returns their batch if the broker is durable, and otherwise `None` once they have finished.
    async fn send(
        &self,
        log: &Mutex<Log>,
        signatures: Vec<Signature>,
    ) -> Result<Option<PublishedBatch>, String> {
        if let Durability::OutboxUntilDone = self.durability {
            let sent = self.client.send_batch(signatures).await.into_iter();
            let sent: Result<Vec<_>, _> = sent.collect();
            return sent.map(|_| None).map_err(|error| error.to_string());
        }
        let sending = async {
            let mut current = log.lock().await;
            match self.client.send_logged(&mut current.log, signatures).await {
                Ok(()) => Ok(Some(current.last())),
                Err(error) => {
                    if let LoggedSendError::Lost { .. } = error {
                        telemetry::warn!("Redis has lost data; lost tasks will be sent again");
                        *current = Log::new(self.ids.next());
                    }
                    Err(error.to_string())
                }
            }
        };
        let sent = tokio::time::timeout(PUBLISH_TIMEOUT, sending).await;
        sent.unwrap_or_else(|_| Err("the broker did not respond in time".to_owned()))
    }

    fn signature(&self, task: OutboxTask) -> Signature {
        task.trace.iter().fold(
            Signature::new(&task.name)
                .id(task.task_id)
                .args(task.args)
                .queue(&self.queue),
            |signature, (name, value)| signature.header(name, value.as_str()),
        )
    }

    fn lease(&self) -> Duration {
        match self.durability {
            Durability::Broker(_) => 2 * PUBLISH_TIMEOUT,
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
