//! `pressroom serve`: the API on PostgreSQL and Redis, and the dispatcher that publishes its outbox.

use std::sync::Arc;

use anyhow::Context as _;
use celeriac::{Broker, Client, RedisBroker, default_node_name, otel::OtelObserver};
use futures_util::FutureExt as _;
use telemetry::Export;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Service, listen::listen, with_telemetry};
use crate::{
    accounts::RateLimiter,
    clock::SystemClock,
    config::ServeConfig,
    health::{Health, TaskQueue},
    lifecycle::Lifecycle,
    store::postgres::PostgresStore,
    tasks::{Durability, Reconciler},
    threads::RequestThreads,
};

const NAME: &str = "pressroom-app";

/// Runs until SIGTERM.
///
/// # Errors
/// Returns an error if the process cannot start, a component fails, or shutdown aborts requests.
pub fn serve(config: ServeConfig) -> anyhow::Result<()> {
    with_telemetry(
        NAME,
        Some(config.environment),
        Export::Always,
        &config.log.clone(),
        |name| run(config, name),
    )
}

async fn run(mut config: ServeConfig, service_name: String) -> anyhow::Result<()> {
    let processors = Handle::current().metrics().num_workers();
    let threads = RequestThreads::start(processors).context("cannot start the threads for requests")?;
    let listeners = listen(&config.listen).await?;
    for runtime in threads.runtimes() {
        telemetry::observe_runtime(&runtime);
    }
    config.database.runtimes = threads.runtimes();
    let mut store = PostgresStore::connect(&config.database)?;
    if let Some(replica) = &mut config.replica {
        replica.runtimes = threads.runtimes();
        store = store.reading_from(replica)?;
    }
    let store = Arc::new(store);
    let observer = Arc::new(OtelObserver::new(default_node_name()).with_redis(&config.redis));
    let broker = RedisBroker::new(config.redis)?.observer(observer.clone());
    let limiter = RateLimiter::new(config.api.rates, config.secret_key.clone()).shared_through(&broker);
    let broker = Arc::new(broker);
    let client = Client::new(broker.clone()).observer(observer.clone());
    let reconciler = Reconciler::new(
        store.clone(),
        &broker,
        client.clone(),
        Arc::new(SystemClock),
        config.published_task_lifetime,
    );
    let broker: Arc<dyn Broker> = broker;
    let _queues = observer.watch_queues(broker.clone(), config.queues.clone());
    let mut lifecycle = Lifecycle::new().delay(config.shutdown_delay);
    lifecycle.spawn("reconciler", reconciler.run(lifecycle.shutdown()).map(Ok));

    let health = Health::new(service_name, store.clone(), TaskQueue::through(broker));
    let draining = CancellationToken::new();
    for listener in &listeners {
        telemetry::info!(listener.address = %listener.local_addr()?, "Serving");
    }
    let service = Service {
        listeners,
        runtimes: threads.runtimes(),
        api: config.api,
        store: store.clone(),
        secret_key: config.secret_key,
        limiter,
        health: health.clone(),
        client,
        queue: config.queues[0].clone(),
        durability: Durability::Broker(store),
        draining: draining.clone(),
        shutdown_grace: config.shutdown_grace,
    };
    service.spawn(&mut lifecycle);
    let drain = || {
        health.drain();
        draining.cancel();
    };
    lifecycle.run(config.shutdown_grace, drain).await
}
