//! Everything in one process: API, worker, SQLite, in-process queue, and the observatory that shows their telemetry.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use celeriac::{Broker, Client, MemoryBroker, default_node_name, otel::OtelObserver};

use super::{
    GRACE_MARGIN, Sources, app, channels, listen, observatory::Embedded, spawn_background, with_telemetry,
    worker,
};
use crate::{
    accounts::{RateLimiter, SecretKey},
    api,
    config::{Config, Database},
    health::{Health, Queue},
    ids::{IdSource, RandomIds},
    lifecycle::{Ending, Lifecycle},
    server::server,
    store::{Store, sqlite::SqliteStore},
    tasks::{Dispatcher, Durability, NotificationTask},
};

const NAME: &str = "pressroom";

/// How many tasks the in-process queue holds; more wait in the outbox.
const QUEUE_CAPACITY: usize = 1000;

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// When it cannot start, or when a part fails.
pub fn dev(config: Config) -> anyhow::Result<()> {
    let settings = config
        .observatory
        .clone()
        .context("no observatory in this mode")?;
    let observatory = Embedded::start(settings)?;
    let result = with_telemetry(NAME, observatory.export(), |name| {
        run(config, name, observatory.introduce())
    });
    // The last telemetry has arrived.
    observatory.stop();
    result
}

async fn run(config: Config, service_name: String, telemetry: String) -> anyhow::Result<()> {
    let sources = Sources::real();
    let listener = listen(&config).await?;
    let Database::Sqlite(path) = &config.database else {
        anyhow::bail!("DATABASE_URL: is not SQLite");
    };
    let _lock = lock(&config.data_dir)?;
    let secret = match &config.secret_key {
        Some(secret) => SecretKey::new(secret.expose()),
        None => SecretKey::new(&kept_secret(&config.data_dir)?),
    };
    let store: Arc<dyn Store> = Arc::new(open(path)?);
    let observer = Arc::new(OtelObserver::new(default_node_name()));
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(QUEUE_CAPACITY));
    let _queues = observer.watch_queues(broker.clone(), config.queues.clone());
    let outbox = Arc::new(tokio::sync::Notify::new());
    let mut lifecycle = Lifecycle::new();

    let health = Health::new(service_name, store.clone(), Queue::InProcess);
    let app = app(
        &config,
        &sources,
        store.clone(),
        secret.clone(),
        RateLimiter::new(config.rates, secret),
        outbox.clone(),
        health.clone(),
    );
    let dispatcher = Dispatcher::new(
        store.clone(),
        Client::new(broker.clone()).observer(observer.clone()),
        sources.clock.clone(),
        config.queues[0].clone(),
        Durability::OutboxUntilDone,
        outbox,
    );
    let task = NotificationTask {
        store: store.clone(),
        clock: sources.clock.clone(),
        channels: channels(&config.notifications)?,
    };
    let task_worker = task
        .register(worker::builder(&config, broker).observer(observer))
        .build();

    let (shutdown, grace) = (lifecycle.shutdown(), config.shutdown_grace);
    lifecycle.spawn(
        "worker",
        async move { Ok(task_worker.run(shutdown, grace).await?) },
    );
    spawn_background(&mut lifecycle, dispatcher, &store, &sources);
    // No load balancer has to notice the shutdown first, so draining begins with it.
    let server = server()
        .drain_on(lifecycle.shutdown())
        .grace_period(config.shutdown_grace);
    let shutdown = lifecycle.shutdown().cancelled_owned();
    let address = listener.local_addr()?;
    lifecycle.spawn("server", async move {
        Ok(server.serve(listener, api::service(app), shutdown).await?)
    });
    welcome(address.port(), path, &telemetry)?;
    let ending = Ending {
        delay: Duration::ZERO,
        grace: config.shutdown_grace + GRACE_MARGIN,
    };
    lifecycle.run(ending, || health.drain()).await
}

fn open(path: &Path) -> anyhow::Result<SqliteStore> {
    let text = path.to_str().context("DATABASE_URL: is not UTF-8")?;
    SqliteStore::open(text).with_context(|| format!("DATABASE_URL: cannot open {}", path.display()))
}

/// Keeps other processes away from this folder for as long as it lives: two of them would take each
/// other's tasks from the outbox.
fn lock(data_dir: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("DATA_DIR: cannot make {}", data_dir.display()))?;
    let path = data_dir.join("lock");
    let file =
        std::fs::File::create(&path).with_context(|| format!("DATA_DIR: cannot write {}", path.display()))?;
    file.try_lock()
        .with_context(|| format!("DATA_DIR: another process uses {}", data_dir.display()))?;
    Ok(file)
}

/// The key that an earlier run made, or a new one, readable by this user only.
fn kept_secret(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("secret_key");
    let cannot = |what: &str| format!("DATA_DIR: cannot {what} {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(secret) if secret.trim().len() >= 32 => return Ok(secret.trim().to_owned()),
        Ok(_) => anyhow::bail!(
            "DATA_DIR: {} holds no key; remove it for a new one",
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

/// Tells a newcomer where to look and what to try first.
fn welcome(port: u16, database: &Path, telemetry: &str) -> anyhow::Result<()> {
    let text = format!(
        r#"
Pressroom is running: API, worker and database in this one process.

  API        http://localhost:{port}/api/health
  Docs       http://localhost:{port}/api/docs
  Telemetry  {telemetry}
  Data       {database}

Try it:

  curl -X POST http://localhost:{port}/api/register \
    -H 'Content-Type: application/json' \
    -d '{{"email": "alice@example.com", "name": "Alice", "password": "password123"}}'

Stop with Ctrl-C.

"#,
        database = database.display(),
    );
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
