//! The worker: takes messages from queues, runs the tasks they name, and settles each with its broker. Built with
//! [`Worker::builder`], run with [`Worker::run`].
//!
//! [`registry`] finds a task's code, [`consume`] takes messages, [`execute`] runs one and decides how it ended,
//! [`settle`] tells the broker, [`pulse`] and [`lease`] show that the worker is alive, [`shutdown`] ends it.

mod consume;
mod execute;
mod inflight;
mod lease;
mod pulse;
mod registry;
mod settle;
mod shutdown;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{inflight::Inflight, registry::Registry};
use crate::{
    broker::Broker,
    observer::{Observer, Unobserved},
    system,
    task::{TaskContext, TaskError, TaskOptions},
};

/// Runs tasks.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
}

/// What the parts of a worker have in common.
struct Shared {
    broker: Arc<dyn Broker>,
    observer: Arc<dyn Observer>,
    hostname: String,
    queues: Vec<String>,
    prefetch: usize,
    registry: Registry,
    inflight: Inflight,
    concurrency: usize,
    /// One permit a running task; closed when the worker stops.
    slots: Arc<Semaphore>,
    stop: CancellationToken,
    active: AtomicUsize,
    processed: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("hostname", &self.hostname)
            .field("queues", &self.queues)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// Collects what a worker is made of.
pub struct WorkerBuilder {
    broker: Arc<dyn Broker>,
    observer: Arc<dyn Observer>,
    hostname: Option<String>,
    queues: Vec<String>,
    concurrency: usize,
    prefetch_multiplier: usize,
    registry: Registry,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// A worker that did not end cleanly.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorkerError {
    /// Tasks still ran when the grace period was over. They were ended and given back to their queues.
    #[error("{0} tasks were still running at the end of the grace period and were given back")]
    Unfinished(usize),
    /// The broker did not confirm that it has the worker's messages back. They return when the lease or the visibility
    /// timeout ends.
    #[error("{0} messages could not be given back; they return when the worker's lease ends")]
    NotGivenBack(usize),
}

impl Worker {
    /// A worker of this broker, with defaults: queue `celery`, ten tasks at a time, prefetch multiplier 4.
    #[must_use]
    pub fn builder(broker: Arc<dyn Broker>) -> WorkerBuilder {
        WorkerBuilder {
            broker,
            observer: Arc::new(Unobserved),
            hostname: None,
            queues: Vec::new(),
            concurrency: 10,
            prefetch_multiplier: 4,
            registry: Registry::default(),
        }
    }

    /// Runs until `shutdown` is cancelled. Then stops taking messages, gives back those that have not begun, and waits up
    /// to `grace` for those that have; what still runs after that is ended and given back too.
    ///
    /// A broker that is away is waited for as long as it takes.
    ///
    /// # Errors
    /// When tasks did not end within `grace`, or messages could not be given back.
    pub async fn run(self, shutdown: CancellationToken, grace: Duration) -> Result<(), WorkerError> {
        let shared = self.shared;
        info!(hostname = shared.hostname, queues = ?shared.queues, tasks = ?shared.registry, "worker starts");
        let mut background = JoinSet::new();
        background.spawn(pulse::heartbeats(Arc::clone(&shared)));
        background.spawn(lease::leases(Arc::clone(&shared)));
        let _stops_when_dropped = shared.stop.clone().drop_guard();
        let forward = abort_on_drop(&tokio::spawn({
            let (shared, shutdown) = (Arc::clone(&shared), shutdown);
            async move {
                shutdown.cancelled().await;
                shared.stop.cancel();
            }
        }));
        let tasks = consume::consume(&shared).await;
        let ended = shutdown::shutdown(&shared, tasks, grace).await;
        drop(forward);
        background.shutdown().await;
        pulse::offline(&shared).await;
        info!(hostname = shared.hostname, "worker has ended");
        ended
    }
}

/// Aborts a task when dropped.
struct AbortOnDrop(AbortHandle);

fn abort_on_drop<T>(task: &tokio::task::JoinHandle<T>) -> AbortOnDrop {
    AbortOnDrop(task.abort_handle())
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl WorkerBuilder {
    /// The worker's name, `celery@<host>` by default. Two workers must not share one.
    #[must_use]
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// Adds a queue to take from.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queues.push(queue.into());
        self
    }

    /// How many tasks run at a time; at least one.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How many messages are held for each task that may run; at least one.
    #[must_use]
    pub fn prefetch_multiplier(mut self, multiplier: usize) -> Self {
        self.prefetch_multiplier = multiplier.max(1);
        self
    }

    /// Reports every run to this observer.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Registers a task: its name, options and code. The positional arguments of a message become `A`, usually a tuple.
    #[must_use]
    pub fn task<A, R, F, W>(mut self, name: impl Into<String>, options: TaskOptions, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(TaskContext, A) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.registry.add(name.into(), options, run);
        self
    }

    /// The worker.
    #[must_use]
    pub fn build(self) -> Worker {
        let mut queues = self.queues;
        if queues.is_empty() {
            queues.push("celery".to_owned());
        }
        Worker {
            shared: Arc::new(Shared {
                broker: self.broker,
                observer: self.observer,
                hostname: self.hostname.unwrap_or_else(system::default_node_name),
                queues,
                prefetch: self.concurrency.saturating_mul(self.prefetch_multiplier),
                registry: self.registry,
                inflight: Inflight::default(),
                concurrency: self.concurrency,
                slots: Arc::new(Semaphore::new(self.concurrency)),
                stop: CancellationToken::new(),
                active: AtomicUsize::new(0),
                processed: AtomicU64::new(0),
            }),
        }
    }
}
