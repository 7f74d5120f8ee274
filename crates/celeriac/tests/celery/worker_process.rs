//! A Rust worker in its own process, for tests that kill it or read its telemetry. Arguments: the server's
//! URL, the worker's name, the journal to append to, and queues.
//!
//! `work` (a name, seconds) writes `<name> begins|ends <worker> <time>` to the journal, which survives a
//! kill. The task runs for the given time, or ends immediately if its message was redelivered. `block` does the
//! same but blocks its thread. `add` adds two numbers; `relay` (a queue) sends `add` to the queue.
//!
//! SIGTERM stops the worker, with a grace period of 30 seconds.
//!
//! The environment may set the lease in milliseconds (`TEST_LEASE`), the visibility timeout in seconds
//! (`TEST_VISIBILITY`), the concurrency (`TEST_CONCURRENCY`), the prefetch multiplier (`TEST_PREFETCH`) and the key
//! prefix (`TEST_KEY_PREFIX`).

#![expect(clippy::expect_used, reason = "a test program may panic")]

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use celeriac::{
    Broker, Client, Observer, RedisBroker, RedisConfig, Signature, TaskContext, TaskError, TaskOptions,
    Worker,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || {
        arguments
            .next()
            .expect("usage: <url> <name> <journal> <queue>...")
    };
    let (url, name, journal) = (argument(), argument(), argument());
    let observer = observer(&name);
    let mut config = RedisConfig::new(url);
    if let Some(prefix) = setting::<String>("TEST_KEY_PREFIX") {
        config = config.key_prefix(prefix);
    }
    if let Some(lease) = setting("TEST_LEASE") {
        config = config.lease(Duration::from_millis(lease));
    }
    if let Some(seconds) = setting("TEST_VISIBILITY") {
        config = config.visibility_timeout(Duration::from_secs(seconds));
    }
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(config).expect("the URL is valid"));
    let client = Client::new(Arc::clone(&broker)).observer(Arc::clone(&observer));
    let journal = OpenOptions::new().append(true).create(true).open(journal);
    let journal = Arc::new(journal.expect("the journal can be written"));
    let (work, block) = ((Arc::clone(&journal), name.clone()), (journal, name.clone()));
    let worker = Worker::builder(broker)
        .concurrency(setting("TEST_CONCURRENCY").unwrap_or(10))
        .prefetch_multiplier(setting("TEST_PREFETCH").unwrap_or(4))
        .observer(observer)
        .hostname(format!("celery@{name}"))
        .task(
            "add",
            TaskOptions::default(),
            async |_: TaskContext, (a, b): (i64, i64)| Ok::<_, TaskError>(a + b),
        )
        .task(
            "relay",
            TaskOptions::default(),
            move |_: TaskContext, (queue,): (String,)| {
                let client = client.clone();
                async move {
                    let add = Signature::new("add").arg(2).arg(3).queue(queue);
                    Ok::<_, TaskError>(client.send(add).await.expect("the server is available"))
                }
            },
        )
        .task(
            "work",
            TaskOptions::default(),
            move |context: TaskContext, (task, seconds): (String, f64)| {
                let (journal, name) = work.clone();
                async move {
                    write(&journal, &format!("{task} begins {name}"));
                    if !context.redelivered {
                        // Simulates the work of the task.
                        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    }
                    write(&journal, &format!("{task} ends {name}"));
                    Ok::<_, TaskError>(())
                }
            },
        )
        .task(
            "block",
            TaskOptions::default(),
            move |context: TaskContext, (task, seconds): (String, f64)| {
                let (journal, name) = block.clone();
                async move {
                    write(&journal, &format!("{task} begins {name}"));
                    if !context.redelivered {
                        // Simulates a task that blocks its thread.
                        std::thread::sleep(Duration::from_secs_f64(seconds));
                    }
                    write(&journal, &format!("{task} ends {name}"));
                    Ok::<_, TaskError>(())
                }
            },
        );
    let worker = arguments.fold(worker, |worker, queue| worker.queue(queue));
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).expect("the signal can be handled");
    let stopped = stop.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        stopped.cancel();
    });
    worker
        .build()
        .run(stop, Duration::from_secs(30))
        .await
        .expect("the worker stops cleanly");
}

/// Returns a setting from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests pass settings through the environment"
)]
fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Sets up telemetry as configured by the environment.
#[cfg(feature = "telemetry")]
fn observer(name: &str) -> Arc<dyn Observer> {
    let service = telemetry::Service::new("celeriac-test-worker", "0");
    // Never dropped: the process is killed, so there is no orderly shutdown.
    std::mem::forget(telemetry::init(service).expect("telemetry is set up once"));
    Arc::new(celeriac::otel::OtelObserver::new(name))
}

#[cfg(not(feature = "telemetry"))]
fn observer(_: &str) -> Arc<dyn Observer> {
    Arc::new(celeriac::NoopObserver)
}

/// Writes a line in a single write, which keeps the lines of several processes apart.
fn write(mut journal: &File, event: &str) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is after 1970");
    let line = format!("{event} {}\n", now.as_millis());
    journal
        .write_all(line.as_bytes())
        .expect("the journal can be written");
}
