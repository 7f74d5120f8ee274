//! `pressroom dev`: API, worker, SQLite, in-process queue and observatory in one process.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

use anyhow::Context as _;
use celeriac::{Broker, Client, MemoryBroker, default_node_name, otel::OtelObserver};
use telemetry::Export;
use tokio::runtime::Handle;

use super::{Service, channels, listen::listen, with_telemetry, worker};
use crate::{
    accounts::{RateLimiter, SecretKey},
    clock::SystemClock,
    config::DevConfig,
    health::{Health, TaskQueue},
    ids::{IdSource, RandomIds},
    lifecycle::Lifecycle,
    store::{Store, sqlite::SqliteStore},
    tasks::{Durability, NotificationTask},
};

pub(super) const NAME: &str = "pressroom";

/// Capacity of the in-process queue; further tasks wait in the outbox.
const QUEUE_CAPACITY: usize = 1000;

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// Returns an error if the process cannot start or a component fails.
#[cfg(feature = "observatory")]
pub fn dev(config: DevConfig) -> anyhow::Result<()> {
    let observatory = super::observatory::Embedded::start(config.observatory.0.clone())?;
    let result = start(config, observatory.export(), |api| observatory.introduce(api));
    // The last telemetry has been exported.
    observatory.stop();
    result
}

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// Returns an error if the process cannot start or a component fails.
#[cfg(not(feature = "observatory"))]
pub fn dev(config: DevConfig) -> anyhow::Result<()> {
    start(
        config,
        Export::WhenConfigured,
        |_| match telemetry::destination_variable() {
            Some(variable) => format!("set by {variable}; this build has no observatory"),
            None => {
                "off; this build has no observatory, set OTEL_EXPORTER_OTLP_ENDPOINT to export".to_owned()
            }
        },
    )
}

/// Runs the worker on a runtime of its own, whose threads record telemetry as `pressroom-worker`. `introduce` describes
/// the destination of telemetry once logging is set up, and gets the URL of the API.
fn start(config: DevConfig, export: Export, introduce: impl FnOnce(&str) -> String) -> anyhow::Result<()> {
    let worker = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("worker")
        .on_thread_start(telemetry::enter_component)
        .build()
        .context("cannot start the worker's runtime")?;
    let (environment, log) = (Some(config.environment), config.log.clone());
    let result = with_telemetry(NAME, environment, export, &log, |name| {
        run(config, name, introduce, worker.handle().clone())
    });
    worker.shutdown_background();
    result
}

async fn run(
    config: DevConfig,
    service_name: String,
    introduce: impl FnOnce(&str) -> String,
    worker_runtime: Handle,
) -> anyhow::Result<()> {
    let listeners = listen(&config.listen).await?;
    let _lock = lock(&config.data_dir)?;
    let secret_key = match config.secret_key {
        Some(secret) => secret,
        None => SecretKey::new(&kept_secret(&config.data_dir)?),
    };
    let store = SqliteStore::open(&config.database)
        .with_context(|| format!("DATABASE_URL: cannot open {}", config.database))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let observer = Arc::new(OtelObserver::new(default_node_name()));
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(QUEUE_CAPACITY));
    let _queues = observer.watch_queues(broker.clone(), config.work.queues.clone());
    let mut lifecycle = Lifecycle::new();

    let health = Health::new(service_name, store.clone(), TaskQueue::InProcess);
    let task = NotificationTask {
        store: store.clone(),
        clock: Arc::new(SystemClock),
        channels: channels(&config.work.notify)?,
        author_limit: config.work.notify_limit,
    };
    let task_worker = task
        .register(worker::builder(&config.work, broker.clone()).observer(observer.clone()))
        .build();

    let (shutdown, grace) = (lifecycle.shutdown(), config.shutdown_grace);
    lifecycle.spawn("worker", async move {
        Ok(worker_runtime.spawn(task_worker.run(shutdown, grace)).await??)
    });
    let api_url = config.listen.local_url(listeners[0].local_addr()?.port());
    let service = Service {
        listeners,
        runtimes: Vec::new(),
        limiter: RateLimiter::new(config.api.rates, secret_key.clone()),
        api: config.api,
        store,
        secret_key,
        health: health.clone(),
        client: Client::new(broker).observer(observer),
        queue: config.work.queues[0].clone(),
        durability: Durability::OutboxUntilDone,
        // There is no load balancer to react first, so draining starts with the shutdown.
        draining: lifecycle.shutdown(),
        shutdown_grace: grace,
    };
    service.spawn(&mut lifecycle);
    welcome(&api_url, &config.database, &introduce(&api_url));
    lifecycle.run(grace, || health.drain()).await
}

/// Locks the folder until the returned file is dropped, because two processes would claim each other's tasks.
fn lock(data_dir: &Path) -> anyhow::Result<std::fs::File> {
    let folder = data_dir.display();
    std::fs::create_dir_all(data_dir).with_context(|| format!("DATA_DIR: cannot create {folder}"))?;
    let file = std::fs::File::create(data_dir.join("lock"));
    let file = file.with_context(|| format!("DATA_DIR: cannot write {folder}/lock"))?;
    file.try_lock().with_context(|| {
        format!("DATA_DIR: another process uses {folder}; stop it or set DATA_DIR to another folder")
    })?;
    Ok(file)
}

/// Returns the key that an earlier run generated, or generates one, in a file that only this user can read.
fn kept_secret(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("secret_key");
    let cannot = |what: &str| format!("DATA_DIR: cannot {what} {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(secret) if secret.trim().len() >= 32 => return Ok(secret.trim().to_owned()),
        Ok(_) => anyhow::bail!(
            "DATA_DIR: {} contains no key of at least 32 characters; delete the file to generate a new key",
            path.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| cannot("read")),
    }
    let secret = format!("{}{}", RandomIds.next().simple(), RandomIds.next().simple());
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(secret.as_bytes()))
        .with_context(|| cannot("write"))?;
    Ok(secret)
}

/// Prints the addresses and a first request.
fn welcome(url: &str, database: &str, telemetry: &str) {
    telemetry::print(format!(
        r#"
Pressroom is running: API, worker and database in one process.

  API        {url}/api/health
  Docs       {url}/api/docs
  Telemetry  {telemetry}
  Data       {database}

Try it:

  curl -X POST {url}/api/register \
    -H 'Content-Type: application/json' \
    -d '{{"email": "alice@example.com", "name": "Alice", "password": "password123"}}'

Stop with Ctrl-C.

"#,
    ));
}
