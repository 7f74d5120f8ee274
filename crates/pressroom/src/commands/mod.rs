//! What each command runs: the parts, put together.

mod dev;
mod explore;
mod healthcheck;
mod migrate;
mod observatory;
mod serve;
mod tasks;
mod worker;

use std::{
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use telemetry::{Export, Service, Telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::{
    dev::dev,
    explore::{Logs, Traces, logs, traces},
    healthcheck::healthcheck,
    migrate::migrate,
    observatory::observatory,
    serve::serve,
    tasks::{Tasks, tasks},
    worker::worker,
};
use crate::{
    accounts::{Accounts, Passwords, RateLimiter, SecretKey, Tokens},
    api::{App, Limits},
    articles::Articles,
    clock::{Clock, SystemClock},
    config::{Config, ConfigError, Database, Notifications},
    domain::keys_expired_by,
    health::Health,
    ids::{IdSource, RandomIds},
    lifecycle::Lifecycle,
    store::{Store, StoreError},
    tasks::{
        Dispatcher, deliveries_expired_by,
        notifier::{Channel, InvalidSmtp, LogChannel, SmtpChannel, WebhookChannel},
        watch_backlog,
    },
};

/// How long telemetry may take to send what it still has when the process ends.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// How often what is no longer needed is forgotten.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_hours(1);

/// How much longer than the grace period the parts get, which each keep to it themselves.
const GRACE_MARGIN: Duration = Duration::from_secs(2);

/// Where time and ids come from in a running process.
#[derive(Clone)]
struct Sources {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl Sources {
    fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
        }
    }
}

/// Runs a command with telemetry set up before it and flushed after it, whatever its end. The
/// command is told the service's name in force.
fn with_telemetry<F>(
    name: &'static str,
    export: Export,
    command: impl FnOnce(String) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    install_cryptography();
    let telemetry = telemetry::init(Service {
        name,
        version: env!("CARGO_PKG_VERSION"),
        export,
    })?;
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    telemetry::observe_runtime(runtime.handle());
    let result = runtime.block_on(command(telemetry.service_name().to_owned()));
    if let Err(error) = &result {
        telemetry::error!(error = format!("{error:#}"), "ended");
    }
    // Work that outlived the grace period is abandoned.
    runtime.shutdown_timeout(Duration::from_millis(100));
    flush(telemetry);
    result
}

fn flush(telemetry: Telemetry) {
    if let Err(error) = telemetry.shutdown(FLUSH_DEADLINE) {
        // Logging has ended with it.
        let _ = writeln!(std::io::stderr(), "pressroom: {error}");
    }
}

/// Two crates bring TLS; both use this provider. To install it again does nothing.
fn install_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The address under which this process reaches what listens on `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(config.listen).await;
    listener.with_context(|| format!("HOST, PORT: cannot listen on {}", config.listen))
}

fn app(
    config: &Config,
    sources: &Sources,
    store: Arc<dyn Store>,
    secret: SecretKey,
    limiter: RateLimiter,
    outbox: Arc<tokio::sync::Notify>,
    health: Health,
) -> App {
    let Sources { clock, ids } = sources.clone();
    // Half the processors stay free for requests that hash nothing.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let passwords = Passwords::new(config.password_scheme, processors.div_ceil(2), ids.clone());
    let tokens = Tokens::new(secret, config.token_lifetime, clock.clone(), ids.clone());
    App {
        accounts: Accounts::new(store.clone(), passwords, tokens, limiter, clock.clone()),
        articles: Articles::new(store, clock, ids, outbox),
        health,
        limits: Limits {
            body: config.body_limit,
            request: config.request_timeout,
        },
        proxies: config.trusted_proxies.clone(),
        origins: config.cors_allowed_origins.clone(),
    }
}

/// The channels that are configured; the log when none is.
fn channels(notifications: &Notifications) -> Result<Arc<[Arc<dyn Channel>]>, ConfigError> {
    let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
    if let Some(smtp) = &notifications.smtp {
        let channel = SmtpChannel::new(smtp.url.expose(), &smtp.from).map_err(|error| {
            let variable = match error {
                InvalidSmtp::Url => "SMTP_URL",
                InvalidSmtp::From => "SMTP_FROM",
            };
            ConfigError::new(variable, error)
        })?;
        channels.push(Arc::new(channel));
    }
    if let Some(webhook) = &notifications.webhook {
        let channel = WebhookChannel::new(webhook.url.expose(), webhook.secret.expose())
            .map_err(|error| ConfigError::new("WEBHOOK_URL", error))?;
        channels.push(Arc::new(channel));
    }
    if channels.is_empty() {
        channels.push(Arc::new(LogChannel));
    }
    Ok(channels.into())
}

/// Runs what goes on beside requests wherever they are served: publishing the outbox, counting it,
/// and forgetting what is no longer needed.
fn spawn_background(
    lifecycle: &mut Lifecycle,
    dispatcher: Dispatcher,
    store: &Arc<dyn Store>,
    sources: &Sources,
) {
    let shutdown = lifecycle.shutdown();
    lifecycle.spawn("dispatcher", async move {
        dispatcher.run(shutdown).await;
        Ok(())
    });
    let watching = watch_backlog(store.clone(), sources.clock.clone(), lifecycle.shutdown());
    lifecycle.spawn("outbox metrics", async move {
        watching.await;
        Ok(())
    });
    let cleaning = housekeeping(store.clone(), sources.clock.clone(), lifecycle.shutdown());
    lifecycle.spawn("housekeeping", async move {
        cleaning.await;
        Ok(())
    });
}

/// Forgets what is no longer needed, now and then, until `shutdown`.
async fn housekeeping(store: Arc<dyn Store>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    while shutdown
        .run_until_cancelled(tokio::time::sleep(HOUSEKEEPING_INTERVAL))
        .await
        .is_some()
    {
        let now = clock.now();
        match telemetry::without_spans(store.purge_revoked_tokens(now)).await {
            Ok(tokens) => telemetry::debug!(tokens, "expired tokens forgotten"),
            Err(error) => telemetry::warn!(%error, "expired tokens not forgotten"),
        }
        match telemetry::without_spans(store.purge_deliveries(deliveries_expired_by(now))).await {
            Ok(deliveries) => telemetry::debug!(deliveries, "old deliveries forgotten"),
            Err(error) => telemetry::warn!(%error, "old deliveries not forgotten"),
        }
        match telemetry::without_spans(forget_requests(&store, keys_expired_by(now))).await {
            Ok(keys) => telemetry::debug!(keys, "idempotency keys forgotten"),
            Err(error) => telemetry::warn!(%error, "idempotency keys not forgotten"),
        }
    }
}

/// Forgets requests a batch at a time, so that no statement runs long, and leaves what is too much
/// for one turn to the next.
async fn forget_requests(store: &Arc<dyn Store>, before: Timestamp) -> Result<u64, StoreError> {
    const BATCH: i64 = 1000;
    const BATCHES: u32 = 1000;
    let mut forgotten = 0;
    for _ in 0..BATCHES {
        let batch = store.purge_idempotency_keys(before, BATCH).await?;
        forgotten += batch;
        if batch < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(forgotten)
}

/// The URL of a PostgreSQL database; the configuration has seen to it that it is one.
fn postgres_url(config: &Config) -> anyhow::Result<&str> {
    match &config.database {
        Database::Postgres(url) => Ok(url.expose()),
        Database::Sqlite(_) => anyhow::bail!("DATABASE_URL: is not PostgreSQL"),
    }
}
