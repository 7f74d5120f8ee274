//! Publishes what waits in the outbox, and removes it once the broker is responsible for it.
//!
//! A task may be published twice (a crash between publishing and removing), never not at all; its
//! id stays the same, so that running it twice delivers once.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Client, Signature};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use telemetry::{Context, KeyValue, Span, opentelemetry::trace::FutureExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, domain::OutboxTask, names::span, store::OutboxStore};

/// How many tasks may be on their way to the broker; in one process, how many may wait and run.
const MAX_PUBLISHING: i64 = 256;

/// How often the outbox is looked at when nobody says that there is something new: for tasks of
/// processes that died, and of those whose claim ran out.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long the broker may take to answer.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The back-off while the store or the broker is away.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How far the broker can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives us: a task is its responsibility once it answers, which takes moments.
    Broker,
    /// It dies with us: a task stays in the outbox until it has ended, however long that takes.
    /// Nobody else uses this outbox.
    OutboxUntilDone,
}

/// Moves tasks from the outbox to the broker.
pub struct Dispatcher {
    store: Arc<dyn OutboxStore>,
    client: Client,
    clock: Arc<dyn Clock>,
    queue: String,
    durability: Durability,
    /// Told when the outbox has something new.
    wake: Arc<Notify>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("queue", &self.queue)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    #[must_use]
    pub fn new(
        store: Arc<dyn OutboxStore>,
        client: Client,
        clock: Arc<dyn Clock>,
        queue: String,
        durability: Durability,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            client,
            clock,
            queue,
            durability,
            wake,
        }
    }

    /// Runs until `shutdown`, then takes up no more. What is being published is finished; what the
    /// outbox keeps until it is done stays there.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.durability == Durability::OutboxUntilDone {
            match self.store.release_all_outbox().await {
                Ok(0) => {}
                Ok(tasks) => telemetry::info!(tasks, "tasks of an earlier run are taken up again"),
                Err(error) => telemetry::error!(%error, "claims of an earlier run not released"),
            }
        }
        let mut publishing = FuturesUnordered::new();
        let mut failures = 0;
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(accepted) = publishing.next(), if !publishing.is_empty() => {
                    failures = if accepted { 0 } else { failures + 1 };
                    continue;
                }
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified(), if failures == 0 => {}
            }
            let room = MAX_PUBLISHING - count(publishing.len());
            let began = Instant::now();
            let claim = self.store.claim_outbox(self.clock.now(), self.lease(), room);
            match telemetry::without_spans(claim).await {
                Ok(tasks) => {
                    // A full answer means that more may wait, a failed task that the broker is away.
                    let more = room > 0 && count(tasks.len()) == room;
                    pause = if more && failures == 0 {
                        Duration::ZERO
                    } else {
                        POLL_INTERVAL
                    };
                    let traces: Vec<Context> = tasks.iter().map(parent).collect();
                    claimed(began, &traces).await;
                    // All of it belongs to the trace of the request that asked for it.
                    let tasks = tasks.into_iter().zip(traces);
                    publishing.extend(tasks.map(|(task, trace)| self.publish(task).with_context(trace)));
                }
                Err(error) => {
                    if failures == 0 {
                        telemetry::warn!(%error, "outbox not readable; trying until it is");
                    }
                    failures += 1;
                    pause = backoff(failures);
                }
            }
        }
        if self.durability == Durability::Broker {
            // Each ends within its time-out; cut off, it would be published twice.
            while publishing.next().await.is_some() {}
        }
    }

    /// Publishes a task and writes down what became of it; true when the broker accepted it.
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
        let refusal = match sent {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the broker did not answer in time".to_owned()),
        };
        let written = match &refusal {
            None => self.store.delete_outbox(&[task.id]).await,
            Some(reason) => {
                let pause = backoff(task.attempts.unsigned_abs());
                telemetry::warn!(task.id = %task.task_id, task.attempts, retry_in_s = pause.as_secs_f64(), reason, "task not published");
                self.store
                    .release_outbox(&[task.id], later(self.clock.now(), pause))
                    .await
            }
        };
        if let Err(error) = written {
            // Its claim runs out, and it is published again under the same id.
            telemetry::warn!(task.id = %task.task_id, %error, "outbox not updated");
        }
        refusal.is_none()
    }

    fn lease(&self) -> Duration {
        match self.durability {
            Durability::Broker => 2 * PUBLISH_TIMEOUT,
            // Nobody else would take it, and the next start releases it.
            Durability::OutboxUntilDone => Duration::from_hours(24 * 365),
        }
    }
}

/// A claim is a span of nobody's request, linked to those whose tasks it brought; one that brought
/// none is not worth a span.
async fn claimed(began: Instant, traces: &[Context]) {
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

/// The context of the request that asked for `task`.
fn parent(task: &OutboxTask) -> Context {
    let headers = task.trace.iter();
    telemetry::extract_context(headers.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// How long to wait after this many failures in a row. There is no last try: a task waits for its
/// broker as long as it must.
fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.min(16));
    doubled.min(MAX_BACKOFF)
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}
