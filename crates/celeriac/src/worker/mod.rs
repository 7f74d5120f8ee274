//! The worker: takes messages from queues, runs the tasks they name, and settles each with its broker. Built with
//! [`Worker::builder`], run with [`Worker::run`].
//!
//! [`registry`] finds a task's code, [`consume`] takes messages, [`execute`] runs one and decides how it ended,
//! [`settle`] tells the broker, [`follow`] with all that comes after the task, [`pulse`] and [`lease`] show that the
//! worker is alive, [`mailbox`] hears remote control, [`shutdown`] ends it.

mod confirm;
mod consume;
mod error;
mod event_buffer;
mod events;
mod execute;
mod follow;
mod inflight;
mod lease;
mod limits;
mod mailbox;
mod methods;
mod mingle;
mod pulse;
mod registry;
mod revoked;
mod settle;
mod shared;
mod shutdown;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::error::WorkerError;
use self::{
    event_buffer::EventBuffer,
    inflight::Inflight,
    registry::Registry,
    revoked::Revoked,
    shared::{SenderIdentity, Shared},
};
use crate::{
    broker::Broker,
    control::clock::Clock,
    log::info,
    observer::{NoopObserver, Observer},
    system,
    task::{TaskContext, TaskError, TaskOptions},
};

/// How long tasks wait for the worker to have met the others.
const MEETING: Duration = Duration::from_secs(5);

/// Runs tasks.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
}

/// Collects what a worker is made of.
pub struct WorkerBuilder {
    broker: Arc<dyn Broker>,
    observer: Arc<dyn Observer>,
    hostname: Option<String>,
    queues: Vec<String>,
    default_queue: String,
    concurrency: usize,
    prefetch_multiplier: usize,
    events: bool,
    registry: Registry,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker of this broker, with defaults: queue `celery`, ten tasks at a time, prefetch multiplier 4.
    #[must_use]
    pub fn builder(broker: Arc<dyn Broker>) -> WorkerBuilder {
        WorkerBuilder {
            broker,
            observer: Arc::new(NoopObserver),
            hostname: None,
            queues: Vec::new(),
            default_queue: "celery".to_owned(),
            concurrency: 10,
            prefetch_multiplier: 4,
            events: false,
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
        info!(hostname = shared.hostname, queues = ?shared.queues(), registered = ?shared.registry, "worker starts");
        let mut background = JoinSet::new();
        background.spawn(pulse::heartbeats(Arc::clone(&shared)));
        background.spawn(lease::leases(Arc::clone(&shared)));
        background.spawn(mailbox::serve(Arc::clone(&shared)));
        background.spawn(events::broadcast(Arc::clone(&shared)));
        let _stops_when_dropped = shared.stop.clone().drop_guard();
        background.spawn({
            let shared = Arc::clone(&shared);
            async move {
                shutdown.cancelled().await;
                shared.stop.cancel();
            }
        });
        tokio::select! {
            // So that what was revoked before this worker was there is not run. An outage ends the wait as well.
            _ = timeout(MEETING, shared.mingled.cancelled()) => {}
            () = shared.stop.cancelled() => {}
        }
        let tasks = consume::consume(&shared).await;
        let ended = shutdown::shutdown(&shared, tasks, grace).await;
        background.shutdown().await;
        events::finish(&shared).await;
        pulse::offline(&shared).await;
        mailbox::close(&shared).await;
        info!(hostname = shared.hostname, "worker has ended");
        ended
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

    /// The queue of tasks that follow another one and name no queue of their own; `celery` by default. Celery's
    /// `task_default_queue`.
    #[must_use]
    pub fn default_queue(mut self, queue: impl Into<String>) -> Self {
        self.default_queue = queue.into();
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

    /// Whether events about tasks are sent from the start, as with Celery's `-E`; off by default. Remote control switches
    /// it, and Flower does. They show arguments and results, shortened, to everyone who reaches the broker.
    #[must_use]
    pub fn events(mut self, enabled: bool) -> Self {
        self.events = enabled;
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
    pub fn task<A, R, E, F, W>(mut self, name: impl Into<String>, options: TaskOptions, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(TaskContext, A) -> W + Send + Sync + 'static,
        E: Into<TaskError>,
        W: Future<Output = Result<R, E>> + Send + 'static,
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
                queues: Mutex::new(queues.into()),
                prefetch_multiplier: self.prefetch_multiplier,
                registry: self.registry,
                inflight: Inflight::default(),
                revoked: Revoked::default(),
                events: EventBuffer::new(self.events),
                sender: SenderIdentity {
                    origin: system::origin(),
                    reply_to: system::random_id().to_string(),
                    default_queue: self.default_queue,
                },
                concurrency: AtomicUsize::new(self.concurrency),
                slots: Arc::new(Semaphore::new(self.concurrency)),
                stop: CancellationToken::new(),
                mingled: CancellationToken::new(),
                clock: Clock::default(),
                started: Instant::now(),
                active: AtomicUsize::new(0),
                processed: AtomicU64::new(0),
            }),
        }
    }
}
