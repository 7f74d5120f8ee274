//! Compares the record of published tasks with the broker: forgets tasks that have a final result, and returns
//! tasks that the broker has lost to the outbox.
//!
//! A task is lost if the broker no longer knows of the batch in which it was published; see
//! [`celeriac::PublicationLog`]. The results are read from the broker, so it does not matter whether Pressroom's
//! or Celery's workers run the tasks. A task that finished just before its result was lost runs again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{BrokerError, Client, RedisBroker, RedisScript, RetryDelay, Status, TaskId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::Clock,
    domain::PublishedTask,
    store::{PublishedTaskStore, StoreError},
};

/// Minimum interval between two passes over the published tasks, by any process.
const INTERVAL: Duration = Duration::from_secs(1);

/// Minimum ratio of the time between passes to the duration of a pass, which limits their load when many tasks
/// are queued.
const IDLE_RATIO: u32 = 50;

/// Number of tasks per query.
const PAGE: i64 = 500;

/// Maximum number of times that a task is published. It limits repetitions if the broker keeps losing data.
const MAX_SENDS: i32 = 10;

/// Time-out of [`TAKE_TURN`].
const TURN_TIMEOUT: Duration = Duration::from_secs(1);

const TURN: &str = "pressroom:reconciler";

/// Returns 1 to one caller per interval. KEYS: turn. ARGV: interval in ms.
const TAKE_TURN: &str = "
    if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
        return 1
    end
    return 0
";

/// Back-off while the store or the broker is unavailable.
const BACK_OFF: RetryDelay = RetryDelay::Exponential {
    first: INTERVAL,
    longest: Duration::from_secs(10),
    jitter: true,
};

/// Background job that follows published tasks.
#[derive(Debug)]
pub struct Reconciler {
    store: Arc<dyn PublishedTaskStore>,
    client: Client,
    clock: Arc<dyn Clock>,
    take_turn: RedisScript,
    /// Time after which a task without a final result is forgotten.
    lifetime: Duration,
}

#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Ids of the rows of published tasks, by what becomes of them.
#[derive(Debug, Default)]
struct Sorted {
    finished: Vec<i64>,
    lost: Vec<i64>,
    /// Lost too often to be sent again.
    abandoned: Vec<i64>,
    /// Without a result for longer than the lifetime.
    expired: Vec<i64>,
}

impl Reconciler {
    pub fn new(
        store: Arc<dyn PublishedTaskStore>,
        broker: &RedisBroker,
        client: Client,
        clock: Arc<dyn Clock>,
        lifetime: Duration,
    ) -> Self {
        Self {
            store,
            client,
            clock,
            take_turn: broker.script(TAKE_TURN, TURN_TIMEOUT),
            lifetime,
        }
    }

    /// Runs until `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0;
        let mut pause = INTERVAL;
        while shutdown
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_some()
        {
            let began = Instant::now();
            let pass = telemetry::without_spans(self.pass());
            let Some(result) = shutdown.run_until_cancelled(pass).await else {
                return;
            };
            pause = match result {
                Ok(()) => {
                    failures = 0;
                    INTERVAL.max(began.elapsed() * IDLE_RATIO)
                }
                Err(error) => {
                    // The broker's connections log their outages.
                    if failures == 0 && !matches!(error, PassError::Broker(_)) {
                        telemetry::warn!(%error, "cannot check the published tasks; retrying");
                    }
                    failures += 1;
                    BACK_OFF.after(failures)
                }
            };
        }
    }

    /// Checks all published tasks, unless another process has just done so.
    async fn pass(&self) -> Result<(), PassError> {
        let interval = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
        if self.take_turn.run(&[TURN.to_owned()], &[interval]).await? == 0 {
            return Ok(());
        }
        let mut after = 0;
        loop {
            let tasks = self.store.published_tasks(after, PAGE).await?;
            let Some(last) = tasks.last() else {
                return Ok(());
            };
            after = last.id;
            let sorted = self.sort(&tasks).await?;
            self.apply(sorted).await?;
        }
    }

    async fn sort(&self, tasks: &[PublishedTask]) -> Result<Sorted, BrokerError> {
        let lengths = self.log_lengths(tasks).await?;
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.task_id.into()).collect();
        let statuses = self.client.statuses(&ids).await?;
        let now = self.clock.now();
        let mut sorted = Sorted::default();
        for (task, status) in tasks.iter().zip(statuses) {
            let kept = lengths.get(&task.batch.log).copied().unwrap_or_default();
            let is_lost = u64::try_from(task.batch.number).is_ok_and(|number| number > kept);
            let age = now.duration_since(task.published_at);
            let becomes = if status.as_ref().is_some_and(Status::is_final) {
                &mut sorted.finished
            } else if is_lost && task.sends < MAX_SENDS {
                &mut sorted.lost
            } else if is_lost {
                &mut sorted.abandoned
            } else if age.try_into().is_ok_and(|age: Duration| age > self.lifetime) {
                &mut sorted.expired
            } else {
                continue;
            };
            becomes.push(task.id);
        }
        Ok(sorted)
    }

    /// Returns the lengths of the logs of `tasks` in the broker's data.
    async fn log_lengths(&self, tasks: &[PublishedTask]) -> Result<BTreeMap<Uuid, u64>, BrokerError> {
        let logs: BTreeMap<Uuid, u64> = tasks.iter().map(|task| (task.batch.log, 0)).collect();
        let ids: Vec<String> = logs.keys().map(Uuid::to_string).collect();
        let lengths = self.client.log_lengths(&ids).await?;
        Ok(logs.into_keys().zip(lengths).collect())
    }

    async fn apply(&self, sorted: Sorted) -> Result<(), StoreError> {
        if !sorted.lost.is_empty() {
            let tasks = self.store.republish(&sorted.lost, self.clock.now()).await?;
            telemetry::warn!(tasks, "Redis has lost tasks; sending them again");
        }
        if !sorted.abandoned.is_empty() {
            telemetry::error!(
                tasks = sorted.abandoned.len(),
                sends = MAX_SENDS,
                "Redis has lost tasks again; they are not sent again"
            );
        }
        if !sorted.expired.is_empty() {
            telemetry::debug!(
                tasks = sorted.expired.len(),
                "no longer following tasks without a result"
            );
        }
        let forgotten = [sorted.finished, sorted.abandoned, sorted.expired].concat();
        if !forgotten.is_empty() {
            self.store.delete_published(&forgotten).await?;
        }
        Ok(())
    }
}
