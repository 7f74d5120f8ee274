//! The API on PostgreSQL and Redis, with the dispatcher that publishes its outbox.

use std::sync::Arc;

use celeriac::{Broker, Client, RedisBroker, RedisConfig, default_node_name, otel::OtelObserver};

use super::{GRACE_MARGIN, Sources, app, listen, postgres_url, spawn_background, with_telemetry};
use crate::{
    accounts::{RateLimiter, SecretKey},
    api,
    config::Config,
    health::{Health, Queue},
    lifecycle::{Ending, Lifecycle},
    server::server,
    store::{
        Store,
        postgres::{PostgresConfig, PostgresStore},
    },
    tasks::{Dispatcher, Durability},
};
use telemetry::Export;
use tokio_util::sync::CancellationToken;

const NAME: &str = "pressroom-app";

/// Runs until SIGTERM.
///
/// # Errors
/// When it cannot start, when a part fails, or when requests had to be cut off at the end.
pub fn serve(config: Config) -> anyhow::Result<()> {
    with_telemetry(NAME, Export::Always, |name| run(config, name))
}

async fn run(config: Config, service_name: String) -> anyhow::Result<()> {
    let sources = Sources::real();
    let listener = listen(&config).await?;
    let postgres = PostgresConfig::parse(postgres_url(&config)?)?;
    let mut store = PostgresStore::connect(&postgres)?;
    if let Some(url) = &config.database_read_url {
        store = store.reading_from(&PostgresConfig::parse(url.expose())?)?;
    }
    let store: Arc<dyn Store> = Arc::new(store);
    let secret = config
        .secret_key
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("SECRET_KEY: is required"))?;
    let redis = redis_config(&config)?;
    let observer = Arc::new(OtelObserver::new(default_node_name()).with_redis(&redis));
    let secret = SecretKey::new(secret.expose());
    let broker = RedisBroker::new(redis)?.observer(observer.clone());
    let limiter = RateLimiter::new(config.rates, secret.clone()).shared_through(&broker);
    let broker: Arc<dyn Broker> = Arc::new(broker);
    let _queues = observer.watch_queues(broker.clone(), config.queues.clone());
    let outbox = Arc::new(tokio::sync::Notify::new());
    let mut lifecycle = Lifecycle::new();

    let health = Health::new(service_name, store.clone(), Queue::through(broker.clone()));
    let app = app(
        &config,
        &sources,
        store.clone(),
        secret,
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
    let ending = Ending {
        delay: config.shutdown_delay,
        grace: config.shutdown_grace + GRACE_MARGIN,
    };
    let drain = || {
        health.drain();
        draining.cancel();
    };
    lifecycle.run(ending, drain).await
}

pub(super) fn redis_config(config: &Config) -> anyhow::Result<RedisConfig> {
    let url = config
        .redis_url
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("REDIS_URL: is required"))?;
    Ok(RedisConfig::new(url.expose()).visibility_timeout(config.visibility_timeout))
}
