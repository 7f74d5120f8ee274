//! `pressroom worker`: the task worker on PostgreSQL and Redis.

use std::sync::Arc;

use celeriac::{Broker, RedisBroker, Worker, WorkerBuilder, otel::OtelObserver};
use futures_util::FutureExt as _;
use telemetry::Export;

use super::{channels, with_telemetry};
use crate::{
    clock::SystemClock,
    config::{WorkConfig, WorkerConfig},
    health::watch_database,
    lifecycle::Lifecycle,
    store::postgres::PostgresStore,
    tasks::NotificationTask,
};

const NAME: &str = "pressroom-worker";

/// Runs until SIGTERM.
///
/// # Errors
/// Returns an error if the worker cannot start or shutdown returns unfinished tasks to the queue.
pub fn worker(config: WorkerConfig) -> anyhow::Result<()> {
    with_telemetry(
        NAME,
        Some(config.environment),
        Export::Always,
        &config.log.clone(),
        |_| run(config),
    )
}

async fn run(config: WorkerConfig) -> anyhow::Result<()> {
    let observer = Arc::new(OtelObserver::new(config.hostname.as_str()).with_redis(&config.redis));
    let broker: Arc<dyn Broker> =
        Arc::new(RedisBroker::new(config.redis.lease(config.lease))?.observer(observer.clone()));
    let store = Arc::new(PostgresStore::connect(&config.database)?);
    let task = NotificationTask {
        store: store.clone(),
        clock: Arc::new(SystemClock),
        channels: channels(&config.work.notify)?,
        author_limit: config.work.notify_limit,
    };
    let builder = builder(&config.work, broker)
        .hostname(config.hostname.as_str())
        .events(config.events)
        .keep_failed(true)
        .observer(observer);
    let worker = task.register(builder).build();

    let mut lifecycle = Lifecycle::new();
    let (shutdown, grace) = (lifecycle.shutdown(), config.shutdown_grace);
    lifecycle.spawn("database check", watch_database(store, shutdown.clone()).map(Ok));
    lifecycle.spawn("worker", async move {
        let ended = worker.run(shutdown.clone(), grace).await;
        // Remote control can stop the worker, which stops the process.
        shutdown.cancel();
        Ok(ended?)
    });
    lifecycle.run(grace, || {}).await
}

pub(super) fn builder(config: &WorkConfig, broker: Arc<dyn Broker>) -> WorkerBuilder {
    let builder = Worker::builder(broker).concurrency(config.concurrency.get());
    config.queues.iter().fold(builder, WorkerBuilder::queue)
}
