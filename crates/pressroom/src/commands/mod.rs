//! The commands: each assembles parts of the service and runs them.

mod dev;
mod healthcheck;
mod listen;
mod migrate;
#[cfg(feature = "observatory")]
mod observatory;
mod serve;
mod tasks;
mod worker;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use celeriac::Client;
use futures_util::FutureExt as _;
use telemetry::{Export, KeyValue, LogOutput, Telemetry};
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "observatory")]
pub use self::observatory::{Logs, Traces, logs, observatory, traces};
#[cfg(feature = "mcp")]
pub use self::observatory::{Mcp, mcp};
pub use self::{
    dev::dev,
    healthcheck::healthcheck,
    migrate::migrate,
    serve::serve,
    tasks::{Tasks, tasks},
    worker::worker,
};
use crate::{
    accounts::{Accounts, Passwords, RateLimiter, SecretKey, Tokens},
    api::{self, App, BodyMemory, Limits},
    articles::Articles,
    clock::{Clock, SystemClock},
    config::{ApiConfig, LogConfig, NotifyConfig},
    descriptors,
    domain::keys_expired_by,
    health::{Health, watch_database},
    ids::{IdSource, RandomIds},
    lifecycle::{Lifecycle, ignore_signals},
    server::{ServerLimits, server},
    store::{Store, StoreError},
    tasks::{
        Dispatcher, Durability, deliveries_expired_by,
        notifier::{Channel, LogChannel, SmtpChannel, WebhookChannel},
        watch_backlog,
    },
};

/// Maximum time to export the remaining telemetry when the process ends.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// Default of `RUST_LOG`. Leaves out the notices of PostgreSQL, which sends one on each connection when it
/// restarts, the progress of migrations, and each request of a coding agent.
const LOG_LEVELS: &str = "info,tokio_postgres=warn,refinery_core=warn,rmcp=warn";

/// The same in embedded mode, whose start-up message also covers the worker.
const EMBEDDED_LOG_LEVELS: &str =
    "info,celeriac::worker=warn,tokio_postgres=warn,refinery_core=warn,rmcp=warn";

/// Time between two deletions of expired rows.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_hours(1);

/// Time between two attempts to sum up changes to the article count.
const FOLD_INTERVAL: Duration = Duration::from_secs(5);

/// Sets up telemetry and signals, runs a command with the effective name of the service, and flushes telemetry
/// even if the command fails. A returned [`Logged`](crate::lifecycle::Logged) error is in the log output already.
fn with_telemetry<F>(
    name: &'static str,
    environment: Option<&'static str>,
    export: Export,
    log: &LogConfig,
    command: impl FnOnce(String) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    install_cryptography();
    let service = telemetry::Service {
        name,
        version: env!("CARGO_PKG_VERSION"),
        export,
        log_output: log.output,
        log_format: log.format,
        log_levels: if name == dev::NAME {
            EMBEDDED_LOG_LEVELS
        } else {
            LOG_LEVELS
        },
    };
    let environment = environment.map(|name| KeyValue::new("deployment.environment.name", name));
    let telemetry = Telemetry::builder(service)
        .resource(environment)
        // The worker of embedded mode.
        .component("worker")
        .python_names()
        .init()?;
    let writes_errors = log.output != LogOutput::Off && telemetry::error_enabled!();
    let runtime = Runtime::new().context("cannot start the async runtime")?;
    telemetry::observe_runtime(runtime.handle());
    let service_name = telemetry.service_name().to_owned();
    let result = runtime.block_on(async {
        ignore_signals().context("cannot install signal handlers")?;
        command(service_name).await
    });
    // Abandons work that outlived the grace period.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if let Err(error) = telemetry.shutdown(FLUSH_DEADLINE) {
        // The export has ended, so the error cannot be logged.
        telemetry::print_error(format!("pressroom: {error}\n"));
    }
    result.map_err(|error| {
        if writes_errors {
            error
        } else {
            // No longer a `Logged`, because nothing has shown it.
            anyhow::anyhow!("{error:#}")
        }
    })
}

/// Runs a short command on the current thread.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    install_cryptography();
    current_thread()?.block_on(command).or_else(|error| {
        match error.downcast_ref::<std::io::Error>() {
            // The reader of a pipe, such as `head`, has closed it.
            Some(pipe) if pipe.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        }
    })
}

/// Returns a runtime for the current thread.
fn current_thread() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    runtime.context("cannot start the async runtime")
}

/// Installs the cryptography provider that reqwest and lettre use for TLS. Installing it again has no effect.
fn install_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Parts of the API's process: the server and its background work.
struct Service {
    listeners: Vec<TcpListener>,
    /// Serve the connections; if there are none, the current runtime does.
    runtimes: Vec<Handle>,
    api: ApiConfig,
    store: Arc<dyn Store>,
    secret_key: SecretKey,
    limiter: RateLimiter,
    health: Health,
    /// Publishes the tasks of the outbox.
    client: Client,
    queue: String,
    durability: Durability,
    /// Cancelled when the server starts to drain connections.
    draining: CancellationToken,
    shutdown_grace: Duration,
}

impl Service {
    /// Starts the server and the background work: publishing tasks from the outbox, checking the database,
    /// measuring the outbox, summing up changes to the article count, and deleting expired rows.
    fn spawn(self, lifecycle: &mut Lifecycle) {
        let (store, config) = (self.store, self.api);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn IdSource> = Arc::new(RandomIds);
        let outbox = Arc::new(tokio::sync::Notify::new());
        let dispatcher = Dispatcher {
            store: store.clone(),
            client: self.client,
            clock: clock.clone(),
            ids: ids.clone(),
            queue: self.queue,
            durability: self.durability,
            wake: outbox.clone(),
        };
        lifecycle.spawn("dispatcher", dispatcher.run(lifecycle.shutdown()).map(Ok));
        let watching = watch_database(store.clone(), lifecycle.shutdown());
        lifecycle.spawn("database check", watching.map(Ok));
        let watching = watch_backlog(store.clone(), clock.clone(), lifecycle.shutdown());
        lifecycle.spawn("outbox metrics", watching.map(Ok));
        let folding = fold_article_count(store.clone(), lifecycle.shutdown());
        lifecycle.spawn("article count", folding.map(Ok));
        let cleaning = housekeeping(store.clone(), clock.clone(), lifecycle.shutdown());
        lifecycle.spawn("housekeeping", cleaning.map(Ok));

        // Half of the processors remain for requests without passwords.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let passwords = Passwords::new(config.password_scheme, processors.div_ceil(2), ids.clone());
        let tokens = Tokens::new(self.secret_key, config.token_lifetime, clock.clone(), ids.clone())
            .also_accepting(config.secret_key_previous);
        let app = App {
            accounts: Accounts::new(store.clone(), passwords, tokens, self.limiter, clock.clone()),
            articles: Articles::new(store, clock, ids, outbox),
            health: self.health,
            limits: Limits {
                body: config.body_limit.get(),
                request: config.request_timeout,
            },
            proxies: config.trusted_proxies,
            origins: config.cors_allowed_origins,
            memory: BodyMemory::default(),
        };
        let limits = ServerLimits {
            connections: config.max_connections,
            connections_per_address: config.max_connections_per_address,
            header_read_timeout: config.header_timeout,
            keep_alive_timeout: config.keep_alive_timeout,
            write_timeout: config.request_timeout,
        };
        let descriptors = descriptors::for_clients();
        let server = server(&limits, descriptors, app.proxies.clone(), app.memory.clone());
        let server = server
            .serve_on(self.runtimes)
            .drain_on(self.draining)
            .grace_period(self.shutdown_grace);
        let shutdown = lifecycle.shutdown().cancelled_owned();
        lifecycle.spawn("server", async move {
            Ok(server.serve(self.listeners, api::service(app), shutdown).await?)
        });
    }
}

/// Returns the configured channels, or the log if none is configured.
fn channels(config: &NotifyConfig) -> anyhow::Result<Arc<[Arc<dyn Channel>]>> {
    let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
    if let Some(smtp) = &config.smtp {
        channels.push(Arc::new(SmtpChannel::new(smtp.clone())));
    }
    if let Some(webhook) = &config.webhook {
        let channel = WebhookChannel::new(webhook.url.clone(), webhook.secret.expose())
            .context("WEBHOOK_URL: cannot set up TLS on this machine")?;
        channels.push(Arc::new(channel));
    }
    if channels.is_empty() {
        channels.push(Arc::new(LogChannel));
    }
    Ok(channels.into())
}

/// Sums up changes to the article count at intervals until `shutdown`. Logs the first of consecutive failures.
async fn fold_article_count(store: Arc<dyn Store>, shutdown: CancellationToken) {
    const BATCH: i64 = 10_000;
    let mut failing = false;
    let mut pause = FOLD_INTERVAL;
    while shutdown
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
    {
        pause = FOLD_INTERVAL;
        match telemetry::without_spans(store.fold_article_count(BATCH)).await {
            Ok(changes) => {
                failing = false;
                if changes >= BATCH.unsigned_abs() {
                    // More changes are left.
                    pause = Duration::ZERO;
                }
            }
            // The store logs its outages.
            Err(StoreError::Unavailable(_)) => {}
            Err(error) if !failing => {
                failing = true;
                telemetry::warn!(%error, "cannot sum up changes to the article count; retrying every 5 s");
            }
            Err(_) => {}
        }
    }
}

/// Deletes expired rows at intervals until `shutdown`.
async fn housekeeping(store: Arc<dyn Store>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    while shutdown
        .run_until_cancelled(tokio::time::sleep(HOUSEKEEPING_INTERVAL))
        .await
        .is_some()
    {
        let now = clock.now();
        match telemetry::without_spans(store.purge_revoked_tokens(now)).await {
            Ok(tokens) => telemetry::debug!(cleanup.tokens = tokens, "deleted expired tokens"),
            Err(error) => telemetry::warn!(%error, "cannot delete expired tokens; retrying in an hour"),
        }
        let before = deliveries_expired_by(now);
        let deliveries = in_batches(|limit| store.purge_deliveries(before, limit));
        match telemetry::without_spans(deliveries).await {
            Ok(deliveries) => telemetry::debug!(cleanup.deliveries = deliveries, "deleted old deliveries"),
            Err(error) => telemetry::warn!(%error, "cannot delete old deliveries; retrying in an hour"),
        }
        let before = keys_expired_by(now);
        let keys = in_batches(|limit| store.purge_idempotency_keys(before, limit));
        match telemetry::without_spans(keys).await {
            Ok(keys) => telemetry::debug!(
                cleanup.idempotency_keys = keys,
                "deleted expired idempotency keys"
            ),
            Err(error) => {
                telemetry::warn!(%error, "cannot delete expired idempotency keys; retrying in an hour");
            }
        }
    }
}

/// Deletes rows in batches, so that each statement is short. `purge` deletes up to the given number of rows.
/// After a maximum number of batches, the rest is left to the next run.
async fn in_batches<F>(purge: impl Fn(i64) -> F) -> Result<u64, StoreError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    const BATCH: i64 = 1000;
    const MAX_BATCHES: u32 = 1000;
    let mut purged = 0;
    for _ in 0..MAX_BATCHES {
        let batch = purge(BATCH).await?;
        purged += batch;
        if batch < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(purged)
}
