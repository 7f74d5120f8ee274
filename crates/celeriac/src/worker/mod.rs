//! The worker, which receives messages, runs their tasks, and settles each delivery.
//!
//! [`registry`] finds a task's code, [`consume`] receives messages, [`execute`] runs a task and determines
//! its outcome, [`settle`] settles the delivery, and [`follow`] does so for tasks with follow-up tasks.
//! [`pulse`] and [`lease`] show that the worker is alive, [`mailbox`] handles remote control, and
//! [`shutdown`] stops the worker.

mod bindings;
mod builtin;
mod confirm;
mod consume;
mod event_buffer;
mod events;
mod execute;
mod follow;
mod inflight;
mod lease;
mod lease_status;
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
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::shutdown::WorkerError;
use self::{
    event_buffer::EventBuffer,
    inflight::Inflight,
    lease::LeaseThread,
    lease_status::LeaseStatus,
    registry::{Registry, deserialised, serialised},
    revoked::Revoked,
    shared::{QueueBinding, Shared},
};
use crate::{
    broker::{Broker, BrokerError, Exchange},
    client::Client,
    compression::Compression,
    context::TaskContext,
    control::clock::Clock,
    lock::Lock,
    log::{debug, info},
    observer::{NoopObserver, Observer},
    system,
    task::TaskOptions,
    task_error::TaskError,
    task_type::TaskType,
};

/// Maximum time to wait for the exchange with the other workers before tasks are received.
const MINGLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time-out for returning postponed messages at shutdown.
const POSTPONED_TIMEOUT: Duration = Duration::from_secs(10);
/// Time-out for sending the last events.
const EVENT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time-out for deleting the mailbox, which would otherwise receive commands until it expires.
const MAILBOX_TIMEOUT: Duration = Duration::from_secs(10);

/// Worker that receives and runs tasks.
#[derive(Debug)]
pub struct Worker {
    shared: Shared,
}

/// Builder of a [`Worker`].
#[derive(Debug)]
#[must_use]
pub struct WorkerBuilder {
    shared: Shared,
}

impl Worker {
    /// Returns a builder with the defaults: queue `celery`, concurrency 10, prefetch multiplier 4.
    pub fn builder(broker: Arc<dyn Broker>) -> WorkerBuilder {
        WorkerBuilder {
            shared: Shared {
                client: Client::new(Arc::clone(&broker)),
                broker,
                observer: Arc::new(NoopObserver),
                hostname: system::default_node_name(),
                queues: Lock::new(Arc::default()),
                bindings: Vec::new(),
                prefetch_multiplier: 4,
                registry: Registry::default(),
                inflight: Inflight::default(),
                lease: LeaseStatus::default(),
                skip_finished: true,
                keep_failed: false,
                data: Arc::default(),
                result_compression: None,
                result_extended: false,
                ignore_result: false,
                revoked: Revoked::default(),
                events: EventBuffer::default(),
                concurrency: AtomicUsize::new(10),
                slots: Arc::new(Semaphore::new(10)),
                stop: CancellationToken::new(),
                receptions: watch::Sender::new(0),
                mingled: CancellationToken::new(),
                clock: Clock::default(),
                started: Instant::now(),
                active: AtomicUsize::new(0),
                processed: AtomicU64::new(0),
            },
        }
    }

    /// Runs until `shutdown` is cancelled.
    ///
    /// The worker then stops receiving, returns messages whose tasks have not started to their queues, and
    /// waits up to `grace` for running tasks. Tasks that are still running after that are aborted, and their
    /// messages are returned too. The last worker to stop also returns the messages of tasks with a future `eta`.
    ///
    /// While the broker is unavailable, the worker retries without limit.
    ///
    /// # Errors
    /// Returns an error if tasks did not finish within `grace`, or if messages could not be returned.
    pub async fn run(self, shutdown: CancellationToken, grace: Duration) -> Result<(), WorkerError> {
        // Several workers may be built with the same handle.
        let broker = self.shared.broker.for_worker();
        let shared = Arc::new(Shared {
            broker: broker.unwrap_or(self.shared.broker),
            stop: shutdown.child_token(),
            started: Instant::now(),
            ..self.shared
        });
        let (queues, concurrency, registered) = (shared.queues(), shared.concurrency(), &shared.registry);
        info!(
            celery.hostname = shared.hostname,
            celery.queues = ?queues,
            celery.concurrency = concurrency,
            celery.registered_tasks = ?registered,
            "worker started"
        );
        let mut background = JoinSet::new();
        background.spawn(pulse::heartbeats(Arc::clone(&shared)));
        let lease = LeaseThread::start(&shared);
        background.spawn(mailbox::serve(Arc::clone(&shared)));
        background.spawn(events::broadcast(Arc::clone(&shared)));
        background.spawn(bindings::declare(Arc::clone(&shared)));
        background.spawn(bindings::receive_broadcasts(Arc::clone(&shared)));
        let _stop_on_drop = shared.stop.clone().drop_guard();
        // Tasks that were revoked before this worker started must not run.
        let mingled = timeout(MINGLE_TIMEOUT, shared.mingled.cancelled());
        shared.stop.run_until_cancelled(mingled).await;
        let tasks = consume::consume(&shared).await;
        let result = shutdown::shutdown(&shared, tasks, grace).await;
        lease.stop().await;
        if !matches!(result, Err(WorkerError::NotReturned(_))) {
            shutdown::return_postponed(&shared, true, POSTPONED_TIMEOUT).await;
        }
        background.shutdown().await;
        let flush = events::flush(&shared);
        best_effort("send the last task events", EVENT_TIMEOUT, flush).await;
        let offline = pulse::announce(&shared, "worker-offline");
        best_effort("announce that the worker is offline", EVENT_TIMEOUT, offline).await;
        best_effort("remove the mailbox", MAILBOX_TIMEOUT, mailbox::close(&shared)).await;
        let close = bindings::close(&shared);
        best_effort("delete the queues of fan-out exchanges", MAILBOX_TIMEOUT, close).await;
        info!(celery.hostname = shared.hostname, "worker stopped");
        result
    }
}

/// Awaits an operation at shutdown. A failure is only logged.
async fn best_effort(
    activity: &str,
    limit: Duration,
    operation: impl Future<Output = Result<(), BrokerError>>,
) {
    match timeout(limit, operation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "failed to {activity}"),
        Err(_) => debug!("timed out while trying to {activity}"),
    }
}

impl WorkerBuilder {
    /// Sets the worker's name, `celery@<host>` by default. Two workers must not share a name.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.shared.hostname = hostname.into();
        self
    }

    /// Adds a queue to receive from.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        let queues = self.shared.queues();
        self.shared.queues = Lock::new(queues.iter().cloned().chain([queue.into()]).collect());
        self
    }

    /// Binds a queue to a named exchange, and receives from the queue. Clients that send to the exchange rely on
    /// workers to declare this binding.
    ///
    /// For a fan-out exchange (Celery's `Broadcast`), every worker has its own queue: `queue` followed by the worker's
    /// name. Celery sends to such exchanges with the routing key `celery` by default.
    pub fn bind(
        mut self,
        queue: impl Into<String>,
        exchange: Exchange,
        routing_key: impl Into<String>,
    ) -> Self {
        self.shared.bindings.push(QueueBinding {
            queue: queue.into(),
            exchange,
            routing_key: routing_key.into(),
        });
        self
    }

    /// Sends tasks of tasks that name no queue to a queue by their names; see [`Client::route`].
    pub fn route(mut self, pattern: impl Into<String>, queue: impl Into<String>) -> Self {
        self.shared.client = self.shared.client.route(pattern, queue);
        self
    }

    /// Sends tasks of tasks that name no queue to an exchange by their names; see [`Client::route_to_exchange`].
    pub fn route_to_exchange(
        mut self,
        pattern: impl Into<String>,
        exchange: &Exchange,
        routing_key: impl Into<String>,
    ) -> Self {
        self.shared.client = self
            .shared
            .client
            .route_to_exchange(pattern, exchange, routing_key);
        self
    }

    /// Sets the queue of tasks that follow from tasks and name no queue; `celery` by default. Equivalent to
    /// Celery's `task_default_queue`.
    pub fn default_queue(mut self, queue: impl Into<String>) -> Self {
        self.shared.client = self.shared.client.default_queue(queue);
        self
    }

    /// Sets the maximum number of tasks that run concurrently, at least 1.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        self.shared.concurrency = AtomicUsize::new(concurrency);
        self.shared.slots = Arc::new(Semaphore::new(concurrency));
        self
    }

    /// Sets the number of messages held for each concurrent task, at least 1. Tasks that wait for their rate limit
    /// are held; tasks with a future `eta` are not, because the broker keeps them.
    pub fn prefetch_multiplier(mut self, multiplier: usize) -> Self {
        self.shared.prefetch_multiplier = multiplier.max(1);
        self
    }

    /// Sets whether task events are sent from the start, as with Celery's `-E`; off by default. Remote
    /// control can change this setting, as Flower does. Events show arguments and results, shortened, to
    /// anyone with access to the broker.
    pub fn events(mut self, enabled: bool) -> Self {
        self.shared.events = EventBuffer::new(enabled);
        self
    }

    /// Sets whether a redelivered task whose result is already final is acknowledged without running again;
    /// on by default. Equivalent to Celery's `worker_deduplicate_successful_tasks`, and also covers failures.
    pub fn skip_finished(mut self, skip: bool) -> Self {
        self.shared.skip_finished = skip;
        self
    }

    /// Sets whether the messages of tasks that fail permanently are kept in the dead-letter list, from which
    /// [`DeadLetters::requeue`](crate::DeadLetters::requeue) sends them again; off by default, as in Celery. The
    /// arguments are then readable until the letter is requeued or deleted.
    pub fn keep_failed(mut self, keep: bool) -> Self {
        self.shared.keep_failed = keep;
        self
    }

    /// Sets whether results contain the task's name, arguments, worker, queue, retries and stamps, as with
    /// Celery's `result_extended`; off by default. The arguments are then readable as long as the result.
    pub fn result_extended(mut self, extended: bool) -> Self {
        self.shared.result_extended = extended;
        self
    }

    /// Sets the compression of the results of successful tasks, used if it makes them shorter; none by default. Like
    /// `result_compression` in Celery 5.7, the first version that reads compressed results.
    pub fn result_compression(mut self, compression: Compression) -> Self {
        self.shared.result_compression = Some(compression);
        self
    }

    /// Adds a value that all tasks share, such as a connection pool. Tasks look it up by its type.
    ///
    /// ```
    /// # use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    /// # use celeriac::{MemoryBroker, TaskContext, TaskError, TaskOptions, Worker};
    /// async fn count(context: TaskContext, (): ()) -> Result<u64, TaskError> {
    ///     Ok(context.data::<AtomicU64>().fetch_add(1, Ordering::Relaxed))
    /// }
    ///
    /// # let broker = Arc::new(MemoryBroker::new(10));
    /// let worker = Worker::builder(broker)
    ///     .data(AtomicU64::new(0))
    ///     .task("count", TaskOptions::new(), count)
    ///     .build();
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let context = TaskContext::for_test("count").with_data(AtomicU64::new(7));
    /// assert_eq!(count(context, ()).await, Ok(7));
    /// # });
    /// ```
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        Arc::make_mut(&mut self.shared.data).add(value);
        self
    }

    /// Sets whether the results of all tasks are discarded, even if messages ask for them; off by default. For
    /// clients without a result backend, whose results would only occupy the server. Chords still work.
    pub fn ignore_result(mut self, ignore: bool) -> Self {
        self.shared.ignore_result = ignore;
        self
    }

    /// Reports every run to `observer`.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.shared.client = self.shared.client.observer(Arc::clone(&observer));
        self.shared.observer = observer;
        self
    }

    /// Registers a task with its name, options and code. The positional arguments of a message are
    /// deserialised into `A`, usually a tuple.
    pub fn task<A, R, E, F, W>(mut self, name: impl Into<String>, options: TaskOptions, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(TaskContext, A) -> W + Send + Sync + 'static,
        E: Into<TaskError>,
        W: Future<Output = Result<R, E>> + Send + 'static,
    {
        let parameters = options.parameters.len();
        let handler = move |context: TaskContext, args| {
            let returned = run(context, deserialised::<A>(args, parameters)?);
            Some(
                returned
                    .map(|returned| serialised(returned.map_err(Into::into)?))
                    .boxed(),
            )
        };
        self.shared.registry.add(name.into(), options, Box::new(handler));
        self
    }

    /// Registers a task like [`task`](Self::task), with the name and the types of `task`.
    pub fn typed_task<A, R, E, F, W>(self, task: TaskType<A, R>, options: TaskOptions, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(TaskContext, A) -> W + Send + Sync + 'static,
        E: Into<TaskError>,
        W: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.task(task.name(), options, run)
    }

    /// Builds the worker.
    #[must_use]
    pub fn build(self) -> Worker {
        let mut shared = self.shared;
        let mut queues = shared.queues().to_vec();
        for binding in &mut shared.bindings {
            if binding.exchange.is_fanout() {
                binding.queue = format!("{}.{}", binding.queue, shared.hostname);
            }
            if !queues.contains(&binding.queue) {
                queues.push(binding.queue.clone());
            }
        }
        shared.queues = Lock::new(queues.into());
        if shared.queues().is_empty() {
            shared.queues = Lock::new(["celery".to_owned()].into());
        }
        Worker { shared }
    }
}
