//! A Rust worker as a process of its own, for tests that kill it or look at its telemetry. Arguments: the server's
//! URL, the worker's name, the journal to append to, and queues.
//!
//! `work` (a name, seconds) writes `<name> begins|ends <worker> <time>` into the journal, which a kill cannot take
//! back, and takes that long unless another worker had the message before. `add` adds two numbers, `relay` (a queue)
//! sends `add` there.

#![expect(clippy::expect_used, reason = "a test's program may panic")]

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
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().expect("a URL, a name, a file and queues");
    let (url, name, journal) = (argument(), argument(), argument());
    let observer = observer(&name);
    let broker: Arc<dyn Broker> = Arc::new(RedisBroker::new(RedisConfig::new(url)).expect("a URL of Redis"));
    let client = Client::new(Arc::clone(&broker)).with_observer(Arc::clone(&observer));
    let journal = OpenOptions::new().append(true).create(true).open(journal);
    let journal = Arc::new(journal.expect("the journal can be written"));
    let worker = Worker::builder(broker)
        .observer(observer)
        .hostname(format!("celery@{name}"))
        .task(
            "add",
            TaskOptions::default(),
            async |_: TaskContext, (a, b): (i64, i64)| Ok(a + b),
        )
        .task(
            "relay",
            TaskOptions::default(),
            move |_: TaskContext, (queue,): (String,)| {
                let client = client.clone();
                async move {
                    let add = Signature::new("add").arg(2).arg(3).queue(queue);
                    Ok::<_, TaskError>(client.send(add).await.expect("the server is there"))
                }
            },
        )
        .task(
            "work",
            TaskOptions::default(),
            move |context: TaskContext, (task, seconds): (String, f64)| {
                let (journal, name) = (Arc::clone(&journal), name.clone());
                async move {
                    write(&journal, &format!("{task} begins {name}"));
                    if !context.redelivered {
                        // The work that the test asks for.
                        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    }
                    write(&journal, &format!("{task} ends {name}"));
                    Ok(())
                }
            },
        );
    let worker = arguments.fold(worker, |worker, queue| worker.queue(queue));
    let never = CancellationToken::new();
    worker
        .build()
        .run(never, Duration::ZERO)
        .await
        .expect("it is killed before");
}

/// Log lines and spans go where the environment says.
#[cfg(feature = "telemetry")]
fn observer(name: &str) -> Arc<dyn Observer> {
    let service = telemetry::Service::new("celeriac-test-worker", "0");
    // Kept for ever: a killed process delivers nothing at its end.
    std::mem::forget(telemetry::init(service).expect("it is set up once"));
    Arc::new(celeriac::otel::OtelObserver::new(name))
}

#[cfg(not(feature = "telemetry"))]
fn observer(_: &str) -> Arc<dyn Observer> {
    Arc::new(celeriac::Unobserved)
}

/// One line in one write, so that the lines of several processes do not mix.
fn write(mut journal: &File, event: &str) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    let line = format!("{event} {}\n", now.as_millis());
    journal
        .write_all(line.as_bytes())
        .expect("the journal can be written");
}
