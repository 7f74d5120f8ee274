//! The task worker on PostgreSQL and Redis.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, RedisBroker, Worker, WorkerBuilder, otel::OtelObserver};

use super::{GRACE_MARGIN, Sources, channels, postgres_url, serve::redis_config, with_telemetry};
use crate::{
    config::Config,
    lifecycle::{Ending, Lifecycle},
    store::{
        Store,
        postgres::{PostgresConfig, PostgresStore},
    },
    tasks::NotificationTask,
};
use telemetry::Export;

const NAME: &str = "pressroom-worker";

/// Runs until SIGTERM.
///
/// # Errors
/// When it cannot start, or when tasks had to be given back at the end.
pub fn worker(config: Config) -> anyhow::Result<()> {
    with_telemetry(NAME, Export::Always, |name| run(config, name))
}

async fn run(config: Config, _service_name: String) -> anyhow::Result<()> {
    let sources = Sources::real();
    let postgres = PostgresConfig::parse(postgres_url(&config)?)?;
    let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&postgres)?);
    let redis = redis_config(&config)?;
    let observer = Arc::new(OtelObserver::new(config.hostname.as_str()).with_redis(&redis));
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(redis)?.observer(observer.clone()));
    let task = NotificationTask {
        store,
        clock: sources.clock,
        channels: channels(&config.notifications)?,
    };
    let builder = builder(&config, broker)
        .hostname(config.hostname.as_str())
        .observer(observer);
    let worker = task.register(builder).build();

    let mut lifecycle = Lifecycle::new();
    let (shutdown, grace) = (lifecycle.shutdown(), config.shutdown_grace);
    telemetry::info!(
        queues = config.queues.join(","),
        concurrency = config.concurrency,
        "Working"
    );
    lifecycle.spawn("worker", async move {
        let ended = worker.run(shutdown.clone(), grace).await;
        // By a signal, or by remote control, which is as good.
        shutdown.cancel();
        Ok(ended?)
    });
    // Nobody sends anything to a worker: it takes, and stops taking.
    let ending = Ending {
        delay: Duration::ZERO,
        grace: config.shutdown_grace + GRACE_MARGIN,
    };
    lifecycle.run(ending, || {}).await
}

pub(super) fn builder(config: &Config, broker: Arc<dyn Broker>) -> WorkerBuilder {
    let builder = Worker::builder(broker).concurrency(config.concurrency.get());
    config.queues.iter().fold(builder, WorkerBuilder::queue)
}
