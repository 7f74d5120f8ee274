//! `pressroom serve`: the API on PostgreSQL and Redis, and the dispatcher that publishes its outbox.

use std::sync::Arc;

use celeriac::{Broker, Client, RedisBroker, default_node_name, otel::OtelObserver};
use telemetry::Export;
use tokio_util::sync::CancellationToken;

use super::{Sources, app, listen, shutdown_timing, spawn_background, with_telemetry};
use crate::{
    accounts::RateLimiter,
    api,
    config::ServeConfig,
    health::{Health, TaskQueue},
    lifecycle::{Lifecycle, ShutdownTiming},
    server::server,
    store::{Store, postgres::PostgresStore},
    tasks::{Dispatcher, Durability},
};

const NAME: &str = "pressroom-app";

/// Runs until SIGTERM.
///
/// # Errors
/// When it cannot start, when a part fails, or when requests had to be cut off at the end.
pub fn serve(config: ServeConfig) -> anyhow::Result<()> {
    with_telemetry(NAME, Export::Always, |name| run(config, name))
}

async fn run(config: ServeConfig, service_name: String) -> anyhow::Result<()> {
    let sources = Sources::real();
    let listener = listen(config.listen).await?;
    let mut store = PostgresStore::connect(&config.database)?;
    if let Some(replica) = &config.replica {
        store = store.reading_from(replica)?;
    }
    let store: Arc<dyn Store> = Arc::new(store);
    let observer = Arc::new(OtelObserver::new(default_node_name()).with_redis(&config.redis));
    let broker = RedisBroker::new(config.redis)?.observer(observer.clone());
    let limiter = RateLimiter::new(config.api.rates, config.secret_key.clone()).shared_through(&broker);
    let broker: Arc<dyn Broker> = Arc::new(broker);
    let _queues = observer.watch_queues(broker.clone(), config.queues.clone());
    let outbox = Arc::new(tokio::sync::Notify::new());
    let mut lifecycle = Lifecycle::new();

    let health = Health::new(service_name, store.clone(), TaskQueue::through(broker.clone()));
    let app = app(
        config.api,
        &sources,
        store.clone(),
        config.secret_key,
        limiter,
        outbox.clone(),
        health.clone(),
    );

    let dispatcher = Dispatcher::new(
        store.clone(),
        Client::new(broker).observer(observer),
        sources.clock.clone(),
        config.queues[0].clone(),
        Durability::Broker,
        outbox,
    );
    spawn_background(&mut lifecycle, dispatcher, &store, &sources);
    let draining = CancellationToken::new();
    let server = server()
        .drain_on(draining.clone())
        .grace_period(config.shutdown_grace);
    let shutdown = lifecycle.shutdown().cancelled_owned();
    telemetry::info!(address = %listener.local_addr()?, "Serving");
    lifecycle.spawn("server", async move {
        Ok(server.serve(listener, api::service(app), shutdown).await?)
    });
    let timing = ShutdownTiming {
        delay: config.shutdown_delay,
        ..shutdown_timing(config.shutdown_grace)
    };
    let drain = || {
        health.drain();
        draining.cancel();
    };
    lifecycle.run(timing, drain).await
}
