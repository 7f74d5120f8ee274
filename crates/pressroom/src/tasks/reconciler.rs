//! Compares the record of published tasks with the broker. Tasks with a final result are forgotten; tasks that
//! the broker has lost are moved back to the outbox.
//!
//! A task is lost if the broker no longer knows of the batch in which it was published; see
//! [`celeriac::PublicationLog`]. The results are read from the broker, so it does not matter whether Pressroom's
//! or Celery's workers run the tasks. A task that finished just before its result was lost runs again.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Minimum interval between two checks by any process.
const INTERVAL: Duration = Duration::from_secs(1);

/// Ratio of the pause between passes over all published tasks to the duration of a pass, up to [`MAX_PAUSE`]. It
/// limits the load of passes when many tasks are queued.
const IDLE_RATIO: u32 = 50;

/// Maximum pause between passes.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// Number of tasks per query.
const PAGE: i64 = 500;

/// Maximum number of times that a task is published, in case the broker keeps losing data.
const MAX_SENDS: i32 = 10;

/// Time-out of [`TAKE_TURN`].
const TURN_TIMEOUT: Duration = Duration::from_secs(1);

/// Redis key that exists while no process may check.
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

/// Lengths of publication logs by their ids.
type Lengths = BTreeMap<Uuid, u64>;

/// Published tasks, by the action to take.
#[derive(Debug, Default)]
struct Sorted {
    finished: Vec<PublishedTask>,
    lost: Vec<PublishedTask>,
    /// Lost too often to be sent again.
    abandoned: Vec<PublishedTask>,
    /// Without a result for longer than the lifetime.
    expired: Vec<PublishedTask>,
}

/// Result of a pass over all published tasks.
#[derive(Debug, Default)]
struct Pass {
    /// Number of tasks that were moved back to the outbox.
    lost: u64,
    abandoned: usize,
    expired: usize,
    /// Newest batch in each log of the tasks that the broker still has.
    kept: Lengths,
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
        let (mut kept, mut due) = (Lengths::new(), Instant::now());
        while shutdown
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_some()
        {
            let check = telemetry::without_spans(self.check(&mut kept, &mut due));
            let Some(result) = shutdown.run_until_cancelled(check).await else {
                return;
            };
            pause = match result {
                Ok(()) => {
                    failures = 0;
                    INTERVAL
                }
                Err(error) => {
                    // The store and the broker's connections log their outages.
                    let is_logged = matches!(
                        error,
                        PassError::Store(StoreError::Unavailable(_)) | PassError::Broker(_)
                    );
                    if failures == 0 && !is_logged {
                        telemetry::warn!(%error, "cannot check the published tasks; retrying");
                    }
                    failures += 1;
                    BACK_OFF.after(failures)
                }
            };
        }
    }

    /// Checks all published tasks if a pass is due or the broker has lost batches of the last pass, unless
    /// another process has just had its turn.
    async fn check(&self, kept: &mut Lengths, due: &mut Instant) -> Result<(), PassError> {
        let interval = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
        if self.take_turn.run(&[TURN.to_owned()], &[interval]).await? == 0 {
            return Ok(());
        }
        let began = Instant::now();
        if began < *due && !self.has_lost(kept).await? {
            return Ok(());
        }
        let pass = self.pass().await?;
        *due = Instant::now() + (began.elapsed() * IDLE_RATIO).min(MAX_PAUSE);
        if pass.lost > 0 {
            telemetry::warn!(
                outbox.tasks = pass.lost,
                "Redis has lost tasks; sending them again"
            );
        }
        if pass.abandoned > 0 {
            telemetry::error!(
                outbox.tasks = pass.abandoned,
                outbox.sends = MAX_SENDS,
                "Redis has lost tasks too often; they are not sent again"
            );
        }
        if pass.expired > 0 {
            telemetry::debug!(
                outbox.tasks = pass.expired,
                "no longer following tasks without a result"
            );
        }
        *kept = pass.kept;
        Ok(())
    }

    async fn has_lost(&self, kept: &Lengths) -> Result<bool, BrokerError> {
        let lengths = self.log_lengths(kept.keys().copied()).await?;
        Ok(kept
            .iter()
            .any(|(log, newest)| lengths.get(log).is_none_or(|length| length < newest)))
    }

    async fn pass(&self) -> Result<Pass, PassError> {
        let mut pass = Pass::default();
        let mut after = 0;
        loop {
            let tasks = self.store.published_tasks(after, PAGE).await?;
            let Some(last) = tasks.last() else {
                return Ok(pass);
            };
            after = last.id;
            let sorted = self.sort(&tasks, &mut pass.kept).await?;
            if !sorted.lost.is_empty() {
                pass.lost += self.store.republish(&sorted.lost, self.clock.now()).await?;
            }
            pass.abandoned += sorted.abandoned.len();
            pass.expired += sorted.expired.len();
            let forgotten = [sorted.finished, sorted.abandoned, sorted.expired].concat();
            if !forgotten.is_empty() {
                self.store.delete_published(&forgotten).await?;
            }
        }
    }

    /// Sorts tasks by the action to take, and adds the batches of the remaining tasks to `kept`.
    async fn sort(&self, tasks: &[PublishedTask], kept: &mut Lengths) -> Result<Sorted, BrokerError> {
        let lengths = self.log_lengths(tasks.iter().map(|task| task.batch.log)).await?;
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.task_id.into()).collect();
        let statuses = self.client.statuses(&ids).await?;
        let now = self.clock.now();
        let mut sorted = Sorted::default();
        for (task, status) in tasks.iter().zip(statuses) {
            let number = u64::try_from(task.batch.number).unwrap_or_default();
            let is_lost = number > lengths.get(&task.batch.log).copied().unwrap_or_default();
            let age = now.duration_since(task.published_at);
            let group = if status.as_ref().is_some_and(Status::is_final) {
                &mut sorted.finished
            } else if is_lost && task.sends < MAX_SENDS {
                &mut sorted.lost
            } else if is_lost {
                &mut sorted.abandoned
            } else if age.try_into().is_ok_and(|age: Duration| age > self.lifetime) {
                &mut sorted.expired
            } else {
                let newest = kept.entry(task.batch.log).or_default();
                *newest = number.max(*newest);
                continue;
            };
            group.push(*task);
        }
        Ok(sorted)
    }

    /// Returns the lengths of these logs in the broker's data.
    async fn log_lengths(&self, logs: impl Iterator<Item = Uuid>) -> Result<Lengths, BrokerError> {
        let logs: BTreeSet<Uuid> = logs.collect();
        let ids: Vec<String> = logs.iter().map(Uuid::to_string).collect();
        let lengths = self.client.log_lengths(&ids).await?;
        Ok(logs.into_iter().zip(lengths).collect())
    }
}
